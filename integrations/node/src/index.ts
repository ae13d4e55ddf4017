// Asks Scopeward, the policy decision service for OAuth scopes.
//
// Three questions: `expandRegistrationScopes` when a client registers, `checkAuthorizeScopes` at the authorize endpoint,
// `checkTokenScopes` at the token endpoint. A denial is thrown as `Denied`, with the OAuth error to send; that there is no answer as
// `Unavailable`, which fails the request too.
//
// Adapters for auth servers are in `scopeward/oidc-provider`, `scopeward/mcp-sdk` and `scopeward/better-auth`.

export {
  OAuthClient,
  type AddedScope,
  type AudienceDescription,
  type AudienceGrant,
  type AuthorizeAnswer,
  type AuthorizeQuestion,
  type ClientSource,
  type RegistrationAnswer,
  type RegistrationQuestion,
  type TokenAnswer,
  type TokenGrant,
  type TokenQuestion,
} from "./answers.js";
export {
  AuditEvent,
  AuditGap,
  FileCursor,
  type AuditEventKind,
  type AuditOptions,
  type Cursor,
  type LogOpened,
  type PolicyChange,
  type Position,
} from "./audit.js";
export { Client } from "./client.js";
export {
  AuditStopped,
  Denied,
  ScopewardError,
  Unavailable,
  type OAuthErrorBody,
  type PolicyVersion,
  type RefusedScope,
} from "./errors.js";
export type { CallOptions, ClientOptions, ConnectionOptions } from "./options.js";
export type { AudienceStatus, Condition, Finding, PolicyAttempt, PolicyStatus } from "./status.js";
