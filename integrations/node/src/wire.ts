// Between the plain data of this package and the messages of the service: no I/O.

import {
  create,
  fromBinary,
  toBinary,
  type DescEnum,
  type DescMessage,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { anyUnpack, timestampDate, type Timestamp } from "@bufbuild/protobuf/wkt";
import { status as GrpcStatus, type Metadata } from "@grpc/grpc-js";

import type {
  AddedScope,
  AudienceDescription,
  AuthorizeAnswer,
  AuthorizeQuestion,
  ClientSource,
  OAuthClient,
  RegistrationAnswer,
  RegistrationQuestion,
  TokenAnswer,
  TokenGrant,
  TokenQuestion,
} from "./answers.js";
import { Denied, Unavailable, type PolicyVersion, type QuestionKind, type RefusedScope } from "./errors.js";
import { ErrorInfoSchema, RetryInfoSchema, StatusSchema } from "./proto/google/rpc/errors_pb.js";
import { PolicyStatusService, type Condition as ConditionMessage, type PolicyStatus as StatusMessage } from "./proto/scopeward/v1/policy_status_pb.js";
import {
  ClientSchema,
  ClientSource as WireSource,
  CheckAuthorizeScopesRequestSchema,
  CheckTokenScopesRequestSchema,
  Decision,
  OriginSchema,
  ReasonSchema,
  ScopePolicyService,
  TokenGrant as WireGrant,
  type AddedScope as AddedMessage,
  type AudienceDescription as DescriptionMessage,
  type BatchCheckAuthorizeScopesResponse,
  type BatchCheckTokenScopesResponse,
  type CheckAuthorizeScopesResponse,
  type CheckError,
  type CheckTokenScopesResponse,
  type Client as ClientMessage,
  type ExpandRegistrationScopesResponse,
  type PolicyVersion as VersionMessage,
  type Reason,
  type RefusedScope as RefusedMessage,
} from "./proto/scopeward/v1/scope_policy_pb.js";
import type { Condition, PolicyStatus } from "./status.js";

// Clients choose their scope and metadata, and the service denies what is too much of them; but a message of more than 256 KiB it
// does not read. So what is larger than this is cut to something that is surely denied as well.
const LARGE = 96 * 1024;
const CLIENT_BYTES = 64 * 1024;
const SCOPE_TOKENS = 256;
const SCOPE_TOKEN_BYTES = 512;

const SOURCES: Readonly<Record<ClientSource, WireSource>> = {
  "": WireSource.UNSPECIFIED,
  dcr: WireSource.DCR,
  cimd: WireSource.CIMD,
  static: WireSource.STATIC,
};

const GRANTS: Readonly<Record<TokenGrant, WireGrant>> = {
  refresh: WireGrant.REFRESH,
  client_credentials: WireGrant.CLIENT_CREDENTIALS,
  jwt_bearer: WireGrant.JWT_BEARER,
  token_exchange: WireGrant.TOKEN_EXCHANGE,
};

/** The first version of the service that has `CheckTokenScopes`. */
const TOKENS_SINCE = "0.1.0";

/** One RPC, and how its errors are to be told to a client. */
export interface Method<Q extends DescMessage, A extends DescMessage> {
  readonly path: string;
  readonly question: Q;
  readonly answer: A;
  readonly kind: QuestionKind;
}

function method<Q extends DescMessage, A extends DescMessage>(
  rpc: DescMethodUnary<Q, A> | DescMethodServerStreaming<Q, A>,
  kind: QuestionKind = "other",
): Method<Q, A> {
  return { path: `/${rpc.parent.typeName}/${rpc.name}`, question: rpc.input, answer: rpc.output, kind };
}

export const EXPAND = method(ScopePolicyService.method.expandRegistrationScopes, "registration");
export const CHECK = method(ScopePolicyService.method.checkAuthorizeScopes, "authorize");
export const BATCH = method(ScopePolicyService.method.batchCheckAuthorizeScopes, "authorize");
export const TOKEN = method(ScopePolicyService.method.checkTokenScopes, "token");
export const BATCH_TOKEN = method(ScopePolicyService.method.batchCheckTokenScopes, "token");
export const DESCRIBE = method(ScopePolicyService.method.describeAudience);
export const STATUS = method(PolicyStatusService.method.getPolicyStatus);
export const WATCH_STATUS = method(PolicyStatusService.method.watchPolicyStatus);

export function encoder<Q extends DescMessage>(schema: Q): (message: MessageShape<Q>) => Buffer {
  return (message) => Buffer.from(toBinary(schema, message));
}

export function decoder<A extends DescMessage>(schema: A): (bytes: Buffer) => MessageShape<A> {
  return (bytes) => fromBinary(schema, bytes);
}

// Questions

/** The text with U+FFFD for what has no UTF-8 (a lone surrogate, as JSON may have): outside every grammar, so refused. */
export function wireText(text: string, name = "text"): string {
  if (typeof text !== "string") throw new TypeError(`\`${name}\` is not a string`);
  return Buffer.from(text).toString();
}

function optionalText(text: string | null | undefined, name: string): { [name: string]: string } {
  return text === undefined || text === null ? {} : { [name]: wireText(text, name) };
}

function scopeField(scope: string | null | undefined): { scope?: string } {
  if (scope === undefined || scope === null) return {};
  const text = wireText(scope, "scope");
  if (Buffer.byteLength(text) <= LARGE) return { scope: text };
  const tokens = text.split(" ").filter((token) => token !== "").slice(0, SCOPE_TOKENS + 1);
  return { scope: wireText(tokens.map((token) => token.slice(0, SCOPE_TOKEN_BYTES + 1)).join(" ")) };
}

function wireAudiences(audiences: readonly string[] | string | undefined): string[] {
  const list = audiences === undefined ? [] : typeof audiences === "string" ? [audiences] : audiences;
  return list.map((audience) => wireText(audience, "audiences"));
}

function clientField(client: OAuthClient | undefined): { client?: ClientMessage } {
  if (client === undefined) return {};
  const source = SOURCES[client.source ?? ""];
  if (source === undefined) throw new TypeError(`\`source\` is not one of ${Object.keys(SOURCES).join(", ")}`);
  const message = create(ClientSchema, {
    clientId: wireText(client.clientId ?? "", "clientId"),
    source,
    clientName: wireText(client.clientName ?? "", "clientName"),
    softwareId: wireText(client.softwareId ?? "", "softwareId"),
    softwareVersion: wireText(client.softwareVersion ?? "", "softwareVersion"),
    redirectUris: (client.redirectUris ?? []).map((uri) => wireText(uri, "redirectUris")),
    grantTypes: (client.grantTypes ?? []).map((grant) => wireText(grant, "grantTypes")),
    applicationType: wireText(client.applicationType ?? "", "applicationType"),
  });
  if (toBinary(ClientSchema, message).length <= LARGE) return { client: message };
  return {
    client: create(ClientSchema, {
      clientId: wireText(message.clientId.slice(0, SCOPE_TOKEN_BYTES)),
      source,
      clientName: wireText(message.clientName.slice(0, SCOPE_TOKEN_BYTES)).padEnd(CLIENT_BYTES + 1, "."),
    }),
  };
}

export function expandQuestion(question: RegistrationQuestion): MessageInitShape<typeof EXPAND.question> {
  return {
    audiences: wireAudiences(question.audiences),
    ...scopeField(question.scope),
    ...clientField(question.client),
    ...optionalText(question.previousScope, "previousScope"),
    correlationId: wireText(question.correlationId ?? "", "correlationId"),
  };
}

export function checkQuestion(question: AuthorizeQuestion): MessageShape<typeof CHECK.question> {
  return create(CheckAuthorizeScopesRequestSchema, {
    audiences: wireAudiences(question.audiences),
    ...scopeField(question.scope),
    ...optionalText(question.registeredScope, "registeredScope"),
    ...clientField(question.client),
    correlationId: wireText(question.correlationId ?? "", "correlationId"),
  });
}

export function tokenQuestion(question: TokenQuestion): MessageShape<typeof TOKEN.question> {
  const grant = GRANTS[question.grant];
  if (grant === undefined) throw new TypeError(`\`grant\` is not one of ${Object.keys(GRANTS).join(", ")}`);
  return create(CheckTokenScopesRequestSchema, {
    audiences: wireAudiences(question.audiences),
    ...scopeField(question.scope),
    ...optionalText(question.grantedScope, "grantedScope"),
    ...optionalText(question.registeredScope, "registeredScope"),
    ...clientField(question.client),
    grant,
    correlationId: wireText(question.correlationId ?? "", "correlationId"),
  });
}

// Answers

/** The name without its prefix; the number of a value that only newer servers know; empty for unspecified. */
export function enumName(schema: DescEnum, value: number): string {
  return value === 0 ? "" : (schema.value[value]?.name.slice(schema.sharedPrefix?.length ?? 0) ?? String(value));
}

export function reasonName(reason: Reason): string {
  return enumName(ReasonSchema, reason);
}

export function tokenGrant(grant: WireGrant): TokenGrant | undefined {
  return (Object.keys(GRANTS) as TokenGrant[]).find((name) => GRANTS[name] === grant);
}

function addedScopes(added: readonly AddedMessage[]): AddedScope[] {
  return added.map(({ scope, origin, rule }) => ({ scope, origin: enumName(OriginSchema, origin), rule }));
}

function refusedScopes(refused: readonly RefusedMessage[]): RefusedScope[] {
  return refused.map(({ scope, reason, message }) => ({ scope, reason: reasonName(reason), message }));
}

export function policyVersion(policy: VersionMessage | undefined): PolicyVersion {
  return { generation: Number(policy?.generation ?? 0), digest: policy?.digest ?? "" };
}

export { addedScopes, refusedScopes };

/** The client of an audit event: all members are there. */
export function oauthClient(client: ClientMessage): Required<OAuthClient> {
  const { clientId, clientName, softwareId, softwareVersion, redirectUris, grantTypes, applicationType } = client;
  const source = Object.entries(SOURCES).find(([, number]) => number === client.source)?.[0] ?? "";
  return { clientId, source: source as ClientSource, clientName, softwareId, softwareVersion, redirectUris, grantTypes, applicationType };
}

/** @throws {Denied | Unavailable} for anything but a grant. */
function expectGrant(
  answer: ExpandRegistrationScopesResponse | CheckAuthorizeScopesResponse | CheckTokenScopesResponse,
  kind: QuestionKind,
): void {
  if (answer.decision === Decision.ALLOW && answer.scope !== "") return;
  if (answer.decision === Decision.DENY && answer.oauthError !== undefined && answer.oauthError.error !== "") {
    throw new Denied({
      error: answer.oauthError.error,
      errorDescription: answer.oauthError.errorDescription,
      reason: reasonName(answer.reason),
      refused: refusedScopes(answer.refused),
      policy: policyVersion(answer.policy),
      decisionId: answer.decisionId,
    });
  }
  throw new Unavailable(`decision ${answer.decision} is not understood`, { code: "UNKNOWN", kind });
}

export function registrationAnswer(answer: ExpandRegistrationScopesResponse): RegistrationAnswer {
  expectGrant(answer, "registration");
  return {
    scope: answer.scope,
    added: addedScopes(answer.added),
    refused: refusedScopes(answer.refused),
    policy: policyVersion(answer.policy),
    decisionId: answer.decisionId,
  };
}

export function authorizeAnswer(answer: CheckAuthorizeScopesResponse): AuthorizeAnswer {
  expectGrant(answer, "authorize");
  return {
    scope: answer.scope,
    added: addedScopes(answer.added),
    refused: refusedScopes(answer.refused),
    audienceGrants: answer.audienceGrants.map(({ audience, scope }) => ({ audience, scope })),
    // A server from before the field leaves it empty, and what was granted is enough for any check within the request.
    effectiveRegisteredScope: answer.effectiveRegisteredScope || answer.scope,
    policy: policyVersion(answer.policy),
    decisionId: answer.decisionId,
  };
}

export function tokenAnswer(answer: CheckTokenScopesResponse, question: MessageShape<typeof TOKEN.question>): TokenAnswer {
  expectGrant(answer, "token");
  const { scope: asked = "", grantedScope } = question;
  const bound = tokens(asked).length > 0 ? asked : grantedScope;
  if (bound !== undefined && !isWithin(answer.scope, tokens(bound))) {
    throw new Unavailable(`an answer that widens: \`${answer.scope}\` of \`${bound}\``, { code: "UNKNOWN", kind: "token" });
  }
  return {
    scope: answer.scope,
    refused: refusedScopes(answer.refused),
    audienceGrants: answer.audienceGrants.map(({ audience, scope }) => ({ audience, scope })),
    policy: policyVersion(answer.policy),
    decisionId: answer.decisionId,
  };
}

export function tokens(scope: string): string[] {
  return scope.split(" ").filter((token) => token !== "");
}

/** Whether each scope of the text is one of these. */
export function isWithin(scope: string, allowed: readonly string[]): boolean {
  return tokens(scope).every((token) => allowed.includes(token));
}

export function batchAnswers(
  answer: BatchCheckAuthorizeScopesResponse,
  questions: readonly MessageShape<typeof CHECK.question>[],
): (AuthorizeAnswer | Denied | Unavailable)[] {
  return each(answer.results, questions, authorizeAnswer, "authorize");
}

export function batchTokenAnswers(
  answer: BatchCheckTokenScopesResponse,
  questions: readonly MessageShape<typeof TOKEN.question>[],
): (TokenAnswer | Denied | Unavailable)[] {
  return each(answer.results, questions, tokenAnswer, "token");
}

/** One of a batch, whatever it asks. */
interface BatchResult<A> {
  readonly result: { case: "response"; value: A } | { case: "error"; value: CheckError } | { case: undefined };
}

function each<Q, A, T>(
  results: readonly BatchResult<A>[],
  questions: readonly Q[],
  read: (answer: A, question: Q) => T,
  kind: QuestionKind,
): (T | Denied | Unavailable)[] {
  if (results.length !== questions.length) {
    throw new Unavailable(`${results.length} answers to ${questions.length} checks`, { code: "UNKNOWN", kind });
  }
  return questions.map((question, index) => {
    try {
      const result = results[index]?.result;
      if (result?.case === "response") return read(result.value, question);
      if (result?.case === "error") {
        const { code, reason, message } = result.value;
        return new Unavailable(message, { code: codeName(code), kind, reason });
      }
      return new Unavailable("a check has neither an answer nor an error", { code: "UNKNOWN", kind });
    } catch (failure) {
      if (failure instanceof Denied || failure instanceof Unavailable) return failure;
      throw failure;
    }
  });
}

export function audienceDescription(item: DescriptionMessage): AudienceDescription {
  const { $typeName: _, $unknown: __, ...description } = item;
  return description;
}

/** A time to the millisecond, or `undefined` if the field is unset. */
export function when(time: Timestamp | undefined): Date | undefined {
  return time === undefined ? undefined : timestampDate(time);
}

function conditions(items: readonly ConditionMessage[]): Condition[] {
  return items.map(({ type, status, reason, message, observedGeneration, lastTransitionTime }) => ({
    type,
    status,
    reason,
    message,
    observedGeneration: Number(observedGeneration),
    lastTransitionTime: when(lastTransitionTime),
  }));
}

export function policyStatus(status: StatusMessage | undefined): PolicyStatus {
  if (status === undefined) throw new Unavailable("an answer without status", { code: "UNKNOWN" });
  const attempt = status.lastAttempt;
  return {
    active: status.active && policyVersion(status.active),
    loadTime: when(status.loadTime),
    source: status.source,
    audienceCount: status.audienceCount,
    lastAttempt: attempt && {
      attemptTime: when(attempt.attemptTime),
      accepted: attempt.accepted,
      digest: attempt.digest,
      findings: attempt.findings.map(({ $typeName: _, $unknown: __, ...finding }) => finding),
      findingCount: attempt.findingCount,
    },
    conditions: conditions(status.conditions),
    audienceStatuses: status.audienceStatuses.map((item) => ({ audience: item.audience, conditions: conditions(item.conditions) })),
    audienceStatusCount: status.audienceStatusCount,
  };
}

// Errors

export function codeName(code: number): string {
  return GrpcStatus[code] ?? "UNKNOWN";
}

/** What the service says of an error beside its code: the `ErrorInfo` and the `RetryInfo`. */
export interface ErrorDetails {
  reason: string;
  metadata: Record<string, string>;
  /** Milliseconds. */
  retryAfter: number | undefined;
}

/** The details of an error, from its trailers. Empty if they have none that is understood. */
export function errorDetails(trailers: Metadata | undefined): ErrorDetails {
  const details: ErrorDetails = { reason: "", metadata: {}, retryAfter: undefined };
  for (const value of trailers?.get("grpc-status-details-bin") ?? []) {
    if (typeof value === "string") continue;
    try {
      for (const detail of fromBinary(StatusSchema, value).details) {
        const info = anyUnpack(detail, ErrorInfoSchema);
        const delay = anyUnpack(detail, RetryInfoSchema)?.retryDelay;
        if (info !== undefined) [details.reason, details.metadata] = [info.reason, { ...info.metadata }];
        if (delay !== undefined) details.retryAfter = Number(delay.seconds) * 1000 + delay.nanos / 1e6;
      }
    } catch {
      // Not understood, so it says nothing. The code of the error counts.
    }
  }
  return details;
}

/** What an error of gRPC has. */
export interface CallError {
  code: number;
  details: string;
  metadata?: Metadata | undefined;
}

export function isCallError(error: unknown): error is Error & CallError {
  return error instanceof Error && typeof (error as Partial<CallError>).code === "number";
}

let hasToldAge = false;

export function unavailable(kind: QuestionKind, error: Error & CallError): Unavailable {
  const details = errorDetails(error.metadata);
  let message = error.details || "no details";
  if (kind === "token" && error.code === GrpcStatus.UNIMPLEMENTED) {
    message = `the service is too old for the question of the token endpoint: Scopeward ${TOKENS_SINCE} or newer is needed`;
    // Adapters answer each such request with `server_error`, so the log says why.
    if (!hasToldAge) process.emitWarning(message, { type: "ScopewardWarning", code: "SCOPEWARD_TOO_OLD" });
    hasToldAge = true;
  }
  return new Unavailable(message, { code: codeName(error.code), kind, ...details, cause: error });
}
