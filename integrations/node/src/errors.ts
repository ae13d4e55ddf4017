// What a question can come to other than a grant.
//
// `Denied` is an answer: the policy says no, and the OAuth error is ready to be sent. `Unavailable` means that there is no answer:
// the login fails as well, and never with `invalid_scope`, since the client asked nothing wrong.

/** Which question an error belongs to, since registration and authorize know different OAuth errors. */
export type QuestionKind = "registration" | "authorize" | "token" | "other";

/** A scope that was asked for and not granted. */
export interface RefusedScope {
  /** The token as received. */
  readonly scope: string;
  /** Why: `UNSUPPORTED`, `FORBIDDEN`, `UNREGISTERED`, `EXCEEDS_GRANT`, `MALFORMED`, … Newer servers may have more. */
  readonly reason: string;
  /** The same for people. May change; `reason` does not. */
  readonly message: string;
}

/** The policy set that decided. */
export interface PolicyVersion {
  /** Counts the accepted sets of one server process, from 1. */
  readonly generation: number;
  /** `sha256:` and 64 hex digits; equal on all servers with equal policies. */
  readonly digest: string;
}

/** The members of an OAuth error response or redirect. */
export interface OAuthErrorBody {
  error: string;
  error_description: string;
}

// What passes by itself. All other codes want a person.
const TRANSIENT = new Set(["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED"]);
const DESCRIPTION = "the scope policy could not be asked; try again later";

/** Common to all errors of this package. */
export class ScopewardError extends Error {
  override name = "ScopewardError";
}

/**
 * The policy says no.
 *
 * At registration and at the token endpoint answer HTTP 400 with `oauthError()`; at authorize redirect with it, after the redirect URI
 * was validated.
 */
export class Denied extends ScopewardError {
  override name = "Denied";
  /** `invalid_scope` or `invalid_target`, at registration `invalid_client_metadata`. */
  readonly error: string;
  /** At most 512 bytes of printable ASCII without quote and backslash. */
  readonly errorDescription: string;
  readonly httpStatus = 400;
  /** Why the whole was denied, such as `UNSUPPORTED`. */
  readonly reason: string;
  /** Every scope that was refused; `errorDescription` may name fewer. */
  readonly refused: readonly RefusedScope[];
  readonly policy: PolicyVersion;
  /** Names this answer in the audit log. */
  readonly decisionId: string;

  constructor(answer: {
    error: string;
    errorDescription: string;
    reason: string;
    refused: readonly RefusedScope[];
    policy: PolicyVersion;
    decisionId: string;
  }) {
    super(`${answer.error}: ${answer.errorDescription}`);
    this.error = answer.error;
    this.errorDescription = answer.errorDescription;
    this.reason = answer.reason;
    this.refused = answer.refused;
    this.policy = answer.policy;
    this.decisionId = answer.decisionId;
  }

  /** What to send to the client. */
  oauthError(): OAuthErrorBody {
    return { error: this.error, error_description: this.errorDescription };
  }
}

/**
 * There is no answer: the service is down, slow, not allowed to this caller, or not understood.
 *
 * Deny the login or the token. Never fall back to the registered scopes, to an earlier answer, or to a grant.
 */
export class Unavailable extends ScopewardError {
  override name = "Unavailable";
  /** `temporarily_unavailable` or `server_error`. Registration knows only the latter, with `httpStatus` 503 or 500. */
  readonly error: "temporarily_unavailable" | "server_error";
  /** Has nothing of the cause, which is for the server's own log: `message`. */
  readonly errorDescription = DESCRIPTION;
  readonly httpStatus: 503 | 500;
  /** The gRPC code, such as `DEADLINE_EXCEEDED`; `UNKNOWN` for an answer that is not understood. */
  readonly code: string;
  /** The stable reason of the service, such as `POLICY_NOT_LOADED`. Empty if the service did not say. */
  readonly reason: string;
  /** What belongs to the reason, such as `field` or `oldest_sequence`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Milliseconds to wait before asking again, if the service said so. */
  readonly retryAfter: number | undefined;

  constructor(
    message: string,
    details: {
      code: string;
      kind?: QuestionKind;
      reason?: string;
      metadata?: Record<string, string>;
      retryAfter?: number | undefined;
      cause?: unknown;
    },
  ) {
    super(`${details.code}: ${message}`, details.cause === undefined ? undefined : { cause: details.cause });
    const isTransient = TRANSIENT.has(details.code) && details.reason !== "ANSWER_TOO_LARGE";
    this.error = isTransient && details.kind !== "registration" ? "temporarily_unavailable" : "server_error";
    this.httpStatus = isTransient ? 503 : 500;
    this.code = details.code;
    this.reason = details.reason ?? "";
    this.metadata = details.metadata ?? {};
    this.retryAfter = details.retryAfter;
  }

  /** What to send to the client. */
  oauthError(): OAuthErrorBody {
    return { error: this.error, error_description: this.errorDescription };
  }
}

/**
 * The audit stream cannot continue by itself; a person has to look.
 *
 * By `code`: `OUT_OF_RANGE`, retention has deleted what the cursor wants (`oldest_sequence` and `newest_sequence` are in
 * `metadata`); `INVALID_ARGUMENT` with `LOG_ID_FOREIGN`, the log is another one; `DATA_LOSS`, the chain is broken; any other
 * code that waiting does not change.
 */
export class AuditStopped extends ScopewardError {
  override name = "AuditStopped";
  readonly code: string;
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;

  constructor(message: string, details: { code: string; reason: string; metadata: Record<string, string> }) {
    super(`${details.code}: ${message}`);
    this.code = details.code;
    this.reason = details.reason;
    this.metadata = details.metadata;
  }
}
