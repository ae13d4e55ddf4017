// What the audit log says, and where a reader of it is.

import { open, readFile, rename } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { toJson, type DescMessage, type JsonObject, type JsonValue, type MessageShape } from "@bufbuild/protobuf";

import type { AddedScope, OAuthClient, TokenGrant } from "./answers.js";
import type { PolicyVersion, RefusedScope } from "./errors.js";
import {
  AuditEventKindSchema,
  AuditEventSchema,
  GapSchema,
  type AuditEvent as EventMessage,
  type Gap as GapMessage,
} from "./proto/scopeward/v1/audit_pb.js";
import * as wire from "./wire.js";

/** What an event tells. Newer servers may have more. */
export type AuditEventKind = "EXPANSION" | "DENIAL" | "POLICY_CHANGE" | "LOG_OPENED" | "ACCESS_CHANGE";

/** A place in one audit log: after the record of this sequence. */
export interface Position {
  readonly logId: string;
  readonly sequence: number;
}

/** Keeps where a reader is. Write one of your own to keep it in a database, in one transaction with what you store. */
export interface Cursor {
  /** The position kept, or `undefined` at first. */
  load(): Position | undefined | Promise<Position | undefined>;
  /** Replaces it. Called after the event was handled. */
  save(position: Position): void | Promise<void>;
}

/** Keeps the position in a file, in the form of `scopeward audit tail --cursor-file`. */
export class FileCursor implements Cursor {
  readonly #path: string;

  constructor(path: string | URL) {
    this.#path = typeof path === "string" ? path : fileURLToPath(path);
  }

  /** Rejects for a file that is no cursor: starting from the beginning would hide that. */
  async load(): Promise<Position | undefined> {
    let text: string;
    try {
      text = await readFile(this.#path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
    try {
      const { log_id, sequence } = JSON.parse(text);
      if (typeof log_id !== "string" || !Number.isSafeInteger(sequence) || sequence < 0) throw new TypeError("a member is missing");
      return { logId: log_id, sequence };
    } catch (cause) {
      throw new RangeError(`${this.#path} is no cursor: ${String(cause)}`, { cause });
    }
  }

  /** Replaces the file in one step: a new file, synced, renamed over the old one. */
  async save({ logId, sequence }: Position): Promise<void> {
    const fresh = `${this.#path}.new`;
    const file = await open(fresh, "w");
    try {
      await file.writeFile(JSON.stringify({ log_id: logId, sequence }));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(fresh, this.#path);
  }
}

/** A change, or a refused change, of the policy or of the access file. */
export interface PolicyChange {
  readonly accepted: boolean;
  readonly previousDigest: string;
  readonly findingCount: number;
  /** What changed, in words: at most the first 50. */
  readonly changes: readonly string[];
  readonly changeCount: number;
  readonly wideningCount: number;
}

/** A new log that continues a damaged or missing one. */
export interface LogOpened {
  readonly previousLogId: string;
  readonly previousSequence: number;
  readonly cause: string;
}

/** The members of the JSON line that `scopeward audit tail --output json` prints: hashes in hexadecimal digits. */
function auditLine<D extends DescMessage>(schema: D, message: MessageShape<D>): JsonObject {
  const members = toJson(schema, message, { alwaysEmitImplicit: true }) as JsonObject;
  const hex = (name: string, value: JsonValue): JsonValue =>
    name === "prevHash" || name === "hash" ? Buffer.from(String(value), "base64").toString("hex") : value;
  return Object.fromEntries(Object.entries(members).map(([name, value]) => [name, hex(name, value)]));
}

/** One audited decision or policy change. */
export class AuditEvent {
  readonly logId: string;
  readonly sequence: number;
  /** A UUIDv7, the same if the event is delivered again. */
  readonly eventId: string;
  readonly eventTime: Date | undefined;
  /** An `AuditEventKind`; newer servers may have more. */
  readonly kind: AuditEventKind | (string & {});
  readonly decisionId: string;
  readonly method: string;
  readonly audiences: readonly string[];
  readonly askedAudiences: readonly string[];
  /** As the client claims to be. */
  readonly client: Required<OAuthClient> | undefined;
  readonly clientTruncated: boolean;
  readonly requestedScope: string | undefined;
  readonly registeredScope: string | undefined;
  /** At the token endpoint, what the grant stood for. */
  readonly grantedScope: string | undefined;
  /** At the token endpoint, what the client presented. */
  readonly grant: TokenGrant | undefined;
  readonly effectiveScope: string;
  readonly added: readonly AddedScope[];
  readonly refused: readonly RefusedScope[];
  readonly reason: string;
  readonly policy: PolicyVersion;
  readonly policyChange: PolicyChange | undefined;
  readonly logOpened: LogOpened | undefined;
  readonly callerName: string;
  readonly authenticatedBy: string;
  readonly peer: string;
  readonly traceId: string;
  readonly attempt: number;
  readonly correlationId: string;
  readonly prevHash: Uint8Array;
  readonly hash: Uint8Array;
  readonly #message: EventMessage;

  /** @internal */
  constructor(message: EventMessage) {
    const { policyChange, logOpened } = message;
    this.logId = message.logId;
    this.sequence = Number(message.sequence);
    this.eventId = message.eventId;
    this.eventTime = wire.when(message.eventTime);
    this.kind = wire.enumName(AuditEventKindSchema, message.kind);
    this.decisionId = message.decisionId;
    this.method = message.method;
    this.audiences = message.audiences;
    this.askedAudiences = message.askedAudiences;
    this.client = message.client && wire.oauthClient(message.client);
    this.clientTruncated = message.clientTruncated;
    this.requestedScope = message.requestedScope;
    this.registeredScope = message.registeredScope;
    this.grantedScope = message.grantedScope;
    this.grant = wire.tokenGrant(message.grant);
    this.effectiveScope = message.effectiveScope;
    this.added = wire.addedScopes(message.added);
    this.refused = wire.refusedScopes(message.refused);
    this.reason = wire.reasonName(message.reason);
    this.policy = wire.policyVersion(message.policy);
    this.policyChange = policyChange && {
      accepted: policyChange.accepted,
      previousDigest: policyChange.previousDigest,
      findingCount: policyChange.findingCount,
      changes: policyChange.changes,
      changeCount: policyChange.changeCount,
      wideningCount: policyChange.wideningCount,
    };
    this.logOpened = logOpened && {
      previousLogId: logOpened.previousLogId,
      previousSequence: Number(logOpened.previousSequence),
      cause: logOpened.cause,
    };
    this.callerName = message.caller?.name ?? "";
    this.authenticatedBy = message.caller?.authenticatedBy ?? "";
    this.peer = message.peer;
    this.traceId = message.traceId;
    this.attempt = message.attempt;
    this.correlationId = message.correlationId;
    this.prevHash = message.prevHash;
    this.hash = message.hash;
    this.#message = message;
  }

  /** So that `JSON.stringify` gives the line that `scopeward audit tail --output json` prints. */
  toJSON(): Record<string, unknown> {
    return auditLine(AuditEventSchema, this.#message);
  }
}

/** Events that could not be recorded. Alert on it. */
export class AuditGap {
  readonly logId: string;
  readonly sequence: number;
  /** How many are missing. */
  readonly count: number;
  readonly reason: string;
  readonly firstTime: Date | undefined;
  readonly lastTime: Date | undefined;
  /** How many of them by reason of the denial; empty if they are no denials. */
  readonly reasonCounts: Readonly<Record<string, number>>;
  readonly #message: GapMessage;

  /** @internal */
  constructor(message: GapMessage) {
    this.logId = message.logId;
    this.sequence = Number(message.sequence);
    this.count = Number(message.count);
    this.reason = message.reason;
    this.firstTime = wire.when(message.firstTime);
    this.lastTime = wire.when(message.lastTime);
    this.reasonCounts = Object.fromEntries(Object.entries(message.reasonCounts).map(([name, count]) => [name, Number(count)]));
    this.#message = message;
  }

  /** As for an event, in a member `gap`. */
  toJSON(): Record<string, unknown> {
    return { gap: auditLine(GapSchema, this.#message) };
  }
}

/** What to read of the audit log. */
export interface AuditOptions {
  /** Where to continue, such as `new FileCursor(path)`. Without one, or if it is empty, `start` counts. */
  readonly cursor?: Cursor | undefined;
  /** Where to begin. `earliest` by default. */
  readonly start?: "earliest" | "latest" | Date | undefined;
  /** Only these events. Gaps come always. */
  readonly kinds?: readonly AuditEventKind[] | undefined;
  /** Only events of these audiences. */
  readonly audiences?: readonly string[] | string | undefined;
  /** Wait for new events (the default); otherwise end after the newest one, and throw `Unavailable` if the server disconnects. */
  readonly follow?: boolean | undefined;
  /** Ends the loop, without an error. */
  readonly signal?: AbortSignal | undefined;
}
