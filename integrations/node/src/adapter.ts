// What the adapters of all servers have in common.

import { createHash } from "node:crypto";

import type { ClientSource } from "./answers.js";
import type { Unavailable } from "./errors.js";

/** What `withScopeward` can be told, whatever the server. */
export interface AdapterOptions<StoredClient> {
  /**
   * The resource that this server is for, if the policy has others as well: asked for at registration, and later for clients that
   * send no `resource`.
   */
  readonly audience?: string | undefined;
  /** Where a client is from. By default `cimd` for an https client id and `dcr` for any other, but for what the server itself knows. */
  readonly clientSource?: ((client: StoredClient) => ClientSource) | undefined;
}

/**
 * One id for all requests of a login: the same for the GET and the POST of a consent page, for PAR, and for a reload.
 *
 * Made of the parameters that the client sends with each of them: its id, the redirect URI, `state`, the code challenge, `nonce`.
 * Client libraries make the last three new for each login.
 */
export function loginId(...parameters: unknown[]): string {
  const joined = parameters.map((parameter) => (typeof parameter === "string" ? parameter : "")).join("\0");
  return createHash("sha256").update(joined).digest("hex").slice(0, 32);
}

/** Where a client is from, as far as its id says: an https URL is a metadata document. */
export function sourceOf(clientId: string): ClientSource {
  return clientId.slice(0, 8).toLowerCase() === "https://" ? "cimd" : "dcr";
}

/** The value of `Retry-After` in seconds. */
export function retryAfter(failure: Unavailable): string {
  return String(Math.max(1, Math.ceil((failure.retryAfter ?? 0) / 1000)));
}

/** What a JWT says, unverified: enough to ask with, since the server verifies the same text before it issues anything. */
export function assertionClaims(assertion: unknown): Record<string, unknown> {
  if (typeof assertion !== "string") return {};
  try {
    const claims: unknown = JSON.parse(Buffer.from(assertion.split(".")[1] ?? "", "base64url").toString());
    return typeof claims === "object" && claims !== null ? (claims as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** The scope that an assertion stands for; `undefined` if it names none. What is not understood stands for none. */
export function grantedBy(claims: Readonly<Record<string, unknown>>): string | undefined {
  const scope = claims["scope"] ?? claims["scp"] ?? undefined;
  if (scope === undefined || typeof scope === "string") return scope;
  return Array.isArray(scope) ? scope.filter((token) => typeof token === "string").join(" ") : "";
}
