// Reading the audit stream: what to ask, what a message means, when to reconnect and when to stop.

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { status as GrpcStatus, type ClientReadableStream } from "@grpc/grpc-js";

import { AuditEvent, AuditGap, type AuditOptions, type Position } from "./audit.js";
import { AuditStopped } from "./errors.js";
import {
  AuditEventKind as WireKind,
  AuditService,
  AuditStart,
  StreamAuditEventsRequestSchema,
  type StreamAuditEventsRequest,
  type StreamAuditEventsResponse,
} from "./proto/scopeward/v1/audit_pb.js";
import * as wire from "./wire.js";

const rpc = AuditService.method.streamAuditEvents;

export const STREAM: wire.Method<typeof rpc.input, typeof rpc.output> = {
  path: `/${rpc.parent.typeName}/${rpc.name}`,
  question: rpc.input,
  answer: rpc.output,
  kind: "other",
};

// A checkpoint comes every 15 seconds, so a stream that is silent for longer than this is dead.
const SILENCE_MILLIS = 60_000;
const FIRST_DELAY_MILLIS = 100;
const LAST_DELAY_MILLIS = 1000;

type AuditStream = ClientReadableStream<StreamAuditEventsResponse>;

/** Reads the stream again and again, from where the last one ended. */
export async function* readAudit(
  options: AuditOptions,
  connect: (question: StreamAuditEventsRequest) => Promise<AuditStream>,
  silenceMillis = SILENCE_MILLIS,
): AsyncGenerator<AuditEvent | AuditGap, void, undefined> {
  const { cursor, start = "earliest", follow = true, signal } = options;
  let position = await cursor?.load();
  let delay = FIRST_DELAY_MILLIS;

  async function move(next: Position): Promise<void> {
    if (next.logId === position?.logId && next.sequence === position.sequence) return;
    await cursor?.save(next);
    position = next;
  }

  while (!isAborted(signal)) {
    let isFirst = true;
    let wasSilent = false;
    let wait: number | undefined;
    try {
      const stream = await connect(question(options, position));
      const abort = (): void => stream.cancel();
      signal?.addEventListener("abort", abort);
      const end = (): void => {
        wasSilent = true;
        stream.cancel();
      };
      let silence = setTimeout(end, silenceMillis);
      try {
        for await (const answer of stream as AsyncIterable<StreamAuditEventsResponse>) {
          clearTimeout(silence); // the time that a reader takes for an event is not silence
          delay = FIRST_DELAY_MILLIS;
          const { message } = answer;
          if (message.case === "event" || message.case === "gap") {
            const item = message.case === "event" ? new AuditEvent(message.value) : new AuditGap(message.value);
            yield item;
            await move({ logId: item.logId, sequence: item.sequence });
          } else if (message.case === "checkpoint") {
            // The first names the newest record, before anything was sent: a place to resume from only for who starts there.
            if (!isFirst || (start === "latest" && position === undefined)) {
              await move({ logId: message.value.logId, sequence: Number(message.value.durableSequence) });
            }
          }
          isFirst = false;
          silence = setTimeout(end, silenceMillis);
        }
      } finally {
        clearTimeout(silence);
        signal?.removeEventListener("abort", abort);
        stream.on("error", () => {}); // of the cancellation
        stream.cancel();
      }
    } catch (error) {
      if (isAborted(signal)) return;
      if (!wire.isCallError(error)) throw error;
      if (error.code !== GrpcStatus.UNAVAILABLE && !wasSilent) throw stopped(error);
      if (!follow) throw wire.unavailable("other", wasSilent ? Object.assign(error, { code: GrpcStatus.UNAVAILABLE }) : error);
      wait = wire.errorDetails(error.metadata).retryAfter;
    }
    if (!follow) return;
    await sleep(wait ?? delay, signal);
    delay = Math.min(delay * 2, LAST_DELAY_MILLIS);
  }
}

function question(options: AuditOptions, position: Position | undefined): StreamAuditEventsRequest {
  const { start = "earliest", kinds = [], audiences = [], follow = true } = options;
  const request = create(StreamAuditEventsRequestSchema, {
    kinds: kinds.map((kind) => {
      if (WireKind[kind] === undefined) throw new RangeError(`\`${kind}\` is not a kind of audit event`);
      return WireKind[kind];
    }),
    audiences: (typeof audiences === "string" ? [audiences] : audiences).map((audience) => wire.wireText(audience, "audiences")),
    follow,
  });
  if (position !== undefined) {
    request.logId = position.logId;
    request.start = { case: "afterSequence", value: BigInt(position.sequence) };
  } else if (start instanceof Date) {
    request.start = { case: "startTime", value: timestampFromDate(start) };
  } else {
    request.start = { case: "position", value: start === "latest" ? AuditStart.LATEST : AuditStart.EARLIEST };
  }
  return request;
}

function stopped(error: Error & wire.CallError): AuditStopped {
  const { reason, metadata } = wire.errorDetails(error.metadata);
  return new AuditStopped(error.details || "no details", { code: wire.codeName(error.code), reason, metadata });
}

/** A function, since the compiler takes a member that was read once as constant. */
export function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function sleep(millis: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, millis);
    signal?.addEventListener("abort", done);
  });
}
