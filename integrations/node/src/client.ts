// The client.

import { create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { Client as Channel, type ClientReadableStream, type ServiceError } from "@grpc/grpc-js";

import type {
  AudienceDescription,
  AuthorizeAnswer,
  AuthorizeQuestion,
  RegistrationAnswer,
  RegistrationQuestion,
  TokenAnswer,
  TokenQuestion,
} from "./answers.js";
import type { AuditEvent, AuditGap, AuditOptions } from "./audit.js";
import { STREAM, isAborted, readAudit } from "./audit-reader.js";
import { Connection, parseTarget } from "./connection.js";
import { Denied, Unavailable } from "./errors.js";
import type { CallOptions, ClientOptions } from "./options.js";
import type { PolicyStatus } from "./status.js";
import * as wire from "./wire.js";
import type { Method } from "./wire.js";

const DEFAULT_TARGET = "127.0.0.1:50551";
const DEFAULT_DEADLINE_MILLIS = 1000;

/** A channel of gRPC with what is open on it, so that it can be closed when nothing is. */
interface Line {
  readonly channel: Channel;
  readonly fingerprint: string;
  readonly calls: Set<{ cancel(): void }>;
  isRetired: boolean;
}

/**
 * Asks Scopeward.
 *
 * Make one for each process and keep it: it connects at the first call and reconnects by itself.
 *
 * Every method that asks rejects with `Unavailable` where there is no answer.
 */
export class Client {
  readonly #connection: Connection;
  readonly #deadline: number;
  readonly #lines = new Set<Line>();
  #line: Line | undefined;
  #isClosed = false;

  /**
   * Names the server; opens nothing.
   *
   * @param target `HOST:PORT`, `https://HOST:PORT`, `unix:/PATH`, or several IP addresses. Calls go round robin over all
   *     addresses that a name has, leaving out those that are not healthy.
   * @throws {RangeError} if the arguments do not fit each other.
   */
  constructor(target: string | readonly string[] = DEFAULT_TARGET, options: ClientOptions = {}) {
    const { deadline = DEFAULT_DEADLINE_MILLIS, ...connection } = options;
    this.#connection = new Connection(parseTarget(target), connection);
    this.#deadline = checkedDeadline(deadline);
  }

  /** Ends calls and streams that are open, and refuses new ones. */
  close(): void {
    this.#isClosed = true;
    for (const line of this.#lines) {
      line.isRetired = true;
      for (const call of line.calls) call.cancel();
      this.#closeIfUnused(line);
    }
  }

  /**
   * Asks which scopes a client holds after it registers (RFC 7591) or updates its registration (RFC 7592).
   *
   * @throws {Denied} with the error for HTTP 400.
   * @throws {Unavailable} answer `httpStatus` and `oauthError()`.
   */
  async expandRegistrationScopes(question: RegistrationQuestion & CallOptions): Promise<RegistrationAnswer> {
    return wire.registrationAnswer(await this.#ask(wire.EXPAND, wire.expandQuestion(question), question));
  }

  /**
   * Asks which scopes an authorize request gets (RFC 6749 section 3.3). Not for the token endpoint, where nothing may be added.
   *
   * @throws {Denied} with the error for the redirect.
   * @throws {Unavailable} with the error for the redirect.
   */
  async checkAuthorizeScopes(question: AuthorizeQuestion & CallOptions): Promise<AuthorizeAnswer> {
    return wire.authorizeAnswer(await this.#ask(wire.CHECK, wire.checkQuestion(question), question));
  }

  /** Asks up to 100 checks, answered under one policy version, in the order asked. Failures are in the list, not thrown. */
  async batchCheckAuthorizeScopes(
    checks: readonly AuthorizeQuestion[],
    options: CallOptions = {},
  ): Promise<(AuthorizeAnswer | Denied | Unavailable)[]> {
    const questions = checks.map(wire.checkQuestion);
    return wire.batchAnswers(await this.#ask(wire.BATCH, { checks: questions }, options), questions);
  }

  /**
   * Asks which scopes a token gets at the token endpoint. It only narrows, whatever the policy says.
   *
   * Not for authorization codes and device codes: what was granted at authorize stands. Ask before a refresh token or an assertion is
   * used up, so that a client can try again where there is no answer.
   *
   * @throws {Denied} with the error for HTTP 400.
   * @throws {Unavailable} answer `httpStatus` and `oauthError()`.
   */
  async checkTokenScopes(question: TokenQuestion & CallOptions): Promise<TokenAnswer> {
    const message = wire.tokenQuestion(question);
    return wire.tokenAnswer(await this.#ask(wire.TOKEN, message, question), message);
  }

  /** As `batchCheckAuthorizeScopes`, for the token endpoint. */
  async batchCheckTokenScopes(
    checks: readonly TokenQuestion[],
    options: CallOptions = {},
  ): Promise<(TokenAnswer | Denied | Unavailable)[]> {
    const questions = checks.map(wire.tokenQuestion);
    return wire.batchTokenAnswers(await this.#ask(wire.BATCH_TOKEN, { checks: questions }, options), questions);
  }

  /** What the policy says about one audience. An unknown one is `Unavailable` with code `NOT_FOUND`. */
  async describeAudience(audience: string, options: CallOptions = {}): Promise<AudienceDescription> {
    const { audiences } = await this.#ask(wire.DESCRIBE, { audience: wire.wireText(audience, "audience") }, options);
    const [description] = audiences;
    if (description === undefined || audiences.length !== 1) {
      throw new Unavailable(`${audiences.length} descriptions of one audience`, { code: "UNKNOWN" });
    }
    return wire.audienceDescription(description);
  }

  /** All audiences, ordered by name, in as many calls as it takes. */
  async *describeAudiences(options: CallOptions = {}): AsyncGenerator<AudienceDescription, void, undefined> {
    let pageToken = "";
    do {
      const answer = await this.#ask(wire.DESCRIBE, { pageToken }, options);
      yield* answer.audiences.map(wire.audienceDescription);
      pageToken = answer.nextPageToken;
    } while (pageToken !== "");
  }

  /** Which policy serves, and whether the files on disk would be accepted. */
  async policyStatus(options: CallOptions = {}): Promise<PolicyStatus> {
    return wire.policyStatus((await this.#ask(wire.STATUS, {}, options)).status);
  }

  /** The current state, then each change, and every 30 seconds. Ends with `Unavailable` when the server disconnects. */
  async *watchPolicyStatus(options: { readonly signal?: AbortSignal | undefined } = {}): AsyncGenerator<PolicyStatus, void, undefined> {
    const { signal } = options;
    if (isAborted(signal)) return;
    const stream = await this.#stream(wire.WATCH_STATUS, {});
    const abort = (): void => stream.cancel();
    signal?.addEventListener("abort", abort);
    try {
      for await (const answer of stream as AsyncIterable<MessageShape<typeof wire.WATCH_STATUS.answer>>) {
        yield wire.policyStatus(answer.status);
      }
    } catch (error) {
      if (isAborted(signal)) return;
      throw wire.isCallError(error) ? wire.unavailable("other", error) : error;
    } finally {
      signal?.removeEventListener("abort", abort);
      stream.on("error", () => {}); // of the cancellation
      stream.cancel();
    }
  }

  /**
   * The events of the audit log from the cursor on, at least once each.
   *
   * The cursor moves past an event when the next one is asked for, so leave the loop only between events that you have
   * handled. What passes by itself is waited for: a server that restarts, a connection that breaks.
   *
   * @throws {AuditStopped} in the loop, if only a person can help, such as a cursor that is older than what is kept.
   * @throws {RangeError} if the client has several addresses: each server has a log of its own.
   */
  auditEvents(options: AuditOptions = {}): AsyncGenerator<AuditEvent | AuditGap, void, undefined> {
    if (this.#connection.endpoint.addresses !== 1) {
      throw new RangeError("each server has an audit log of its own: read them one by one, with a cursor for each");
    }
    return readAudit(options, (question) => this.#stream(STREAM, question));
  }

  /** The channel, with the TLS files as they are now. */
  async #open<Q extends DescMessage, A extends DescMessage>(method: Method<Q, A>): Promise<Line> {
    const { kind } = method;
    try {
      const fingerprint = await this.#connection.fingerprint();
      if (this.#line?.fingerprint !== fingerprint) {
        const credentials = await this.#connection.credentials();
        // Another call may have been here meanwhile.
        if (this.#line?.fingerprint !== fingerprint && !this.#isClosed) {
          const channel = new Channel(this.#connection.endpoint.target, credentials, this.#connection.channelOptions());
          const old = this.#line;
          this.#line = { channel, fingerprint, calls: new Set(), isRetired: false };
          this.#lines.add(this.#line);
          if (old !== undefined) {
            old.isRetired = true;
            this.#closeIfUnused(old);
          }
        }
      }
    } catch (cause) {
      throw new Unavailable(`could not read a TLS file: ${String(cause)}`, { code: "UNAUTHENTICATED", kind, cause });
    }
    if (this.#isClosed || this.#line === undefined) throw new Unavailable("the client is closed", { code: "CANCELLED", kind });
    return this.#line;
  }

  #closeIfUnused(line: Line): void {
    if (!line.isRetired || line.calls.size > 0 || !this.#lines.delete(line)) return;
    line.channel.close();
  }

  async #ask<Q extends DescMessage, A extends DescMessage>(
    method: Method<Q, A>,
    question: MessageInitShape<Q>,
    options: CallOptions,
  ): Promise<MessageShape<A>> {
    const deadline = Date.now() + checkedDeadline(options.deadline ?? this.#deadline);
    const message = create(method.question, question);
    const metadata = await this.#connection.metadata(method.kind);
    const line = await this.#open(method);
    return new Promise((resolve, reject) => {
      const answered = (error: ServiceError | null, answer?: MessageShape<A>): void => {
        line.calls.delete(call);
        this.#closeIfUnused(line);
        if (error !== null) reject(wire.unavailable(method.kind, error));
        else if (answer === undefined) reject(new Unavailable("no message", { code: "UNKNOWN", kind: method.kind }));
        else resolve(answer);
      };
      const { path } = method;
      const call = line.channel.makeUnaryRequest(path, wire.encoder(method.question), wire.decoder(method.answer), message, metadata, { deadline }, answered);
      line.calls.add(call);
    });
  }

  async #stream<Q extends DescMessage, A extends DescMessage>(
    method: Method<Q, A>,
    question: MessageInitShape<Q>,
  ): Promise<ClientReadableStream<MessageShape<A>>> {
    const message = create(method.question, question);
    const metadata = await this.#connection.metadata(method.kind);
    const line = await this.#open(method);
    const { path } = method;
    const stream = line.channel.makeServerStreamRequest(path, wire.encoder(method.question), wire.decoder(method.answer), message, metadata);
    line.calls.add(stream);
    stream.on("status", () => {
      line.calls.delete(stream);
      this.#closeIfUnused(line);
    });
    return stream;
  }
}

function checkedDeadline(millis: number): number {
  if (!(millis > 0) || millis === Infinity) throw new RangeError("`deadline` is not a number of milliseconds above 0");
  return millis;
}
