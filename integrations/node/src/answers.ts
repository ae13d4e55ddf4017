// What is asked and what is answered, as plain data.

import type { PolicyVersion, RefusedScope } from "./errors.js";

/** Where the authorization server knows a client from: dynamic registration, a metadata document, an operator; `""` is not said. */
export type ClientSource = "" | "dcr" | "cimd" | "static";

/**
 * The OAuth client, as it registered or as its metadata document says (RFC 7591 section 2).
 *
 * Send the same at all moments: a rule of the policy holds only for what is sent.
 */
export interface OAuthClient {
  /** Left out for a client that registers and has none yet. */
  readonly clientId?: string | undefined;
  readonly source?: ClientSource | undefined;
  readonly clientName?: string | undefined;
  readonly softwareId?: string | undefined;
  readonly softwareVersion?: string | undefined;
  readonly redirectUris?: readonly string[] | undefined;
  readonly grantTypes?: readonly string[] | undefined;
  readonly applicationType?: string | undefined;
}

export const OAuthClient = {
  /**
   * Takes what matters from client metadata as received (RFC 7591); members that are not of their type are left out.
   *
   * @param metadata With the names of the RFC, such as `client_name`.
   * @param about `source` is `dcr` unless said.
   */
  fromMetadata(
    metadata: object,
    about: { clientId?: string | undefined; source?: ClientSource | undefined } = {},
  ): OAuthClient & { readonly source: ClientSource } {
    const members = metadata as Readonly<Record<string, unknown>>;
    const text = (name: string): string => (typeof members[name] === "string" ? members[name] : "");
    const texts = (name: string): string[] => {
      const value = members[name];
      if (!Array.isArray(value)) return [];
      return value.filter((item) => typeof item === "string" || item instanceof URL).map(String);
    };
    return {
      clientId: about.clientId ?? "",
      source: about.source ?? "dcr",
      clientName: text("client_name"),
      softwareId: text("software_id"),
      softwareVersion: text("software_version"),
      redirectUris: texts("redirect_uris"),
      grantTypes: texts("grant_types"),
      applicationType: text("application_type"),
    };
  },
};

/** A client registers, or updates its registration. */
export interface RegistrationQuestion {
  /** As received; `undefined` if the client sent none. */
  readonly scope?: string | null | undefined;
  /** The metadata that you are about to store. */
  readonly client?: OAuthClient | undefined;
  /** Nothing, if one policy serves all: RFC 7591 knows no `resource`. */
  readonly audiences?: readonly string[] | string | undefined;
  /** At an update the scopes stored so far; `undefined` at a new registration. */
  readonly previousScope?: string | null | undefined;
  /** Your own id of this registration, for the audit: at most 128 bytes of printable ASCII. */
  readonly correlationId?: string | undefined;
}

/** A client asks at the authorize endpoint. */
export interface AuthorizeQuestion {
  /** The parameter as received; `undefined` if there was none. */
  readonly scope?: string | null | undefined;
  /** What you stored at registration. `undefined` means that you do not know, `""` that there was none. */
  readonly registeredScope?: string | null | undefined;
  /** Each `resource` parameter (RFC 8707), in order. */
  readonly audiences?: readonly string[] | string | undefined;
  /** The client as stored. */
  readonly client?: OAuthClient | undefined;
  /** One id for all calls of this login, for the audit: at most 128 bytes of printable ASCII. */
  readonly correlationId?: string | undefined;
}

/** What a client presents at the token endpoint: a refresh token, its own credentials, a JWT (RFC 7523), another token (RFC 8693). */
export type TokenGrant = "refresh" | "client_credentials" | "jwt_bearer" | "token_exchange";

/** A client asks at the token endpoint. */
export interface TokenQuestion {
  readonly grant: TokenGrant;
  /** The parameter as received; `undefined` if there was none. */
  readonly scope?: string | null | undefined;
  /**
   * What the grant stands for: the scope of the refresh token, of the subject token, or in the assertion. Needed for `refresh` and
   * `token_exchange`. `undefined` means that it says nothing, `""` that nothing was granted.
   */
  readonly grantedScope?: string | null | undefined;
  /** What you stored at registration; counts only without `grantedScope`. */
  readonly registeredScope?: string | null | undefined;
  /** Each `resource` parameter (RFC 8707), in order, or what the grant is for. */
  readonly audiences?: readonly string[] | string | undefined;
  /** The client as stored. */
  readonly client?: OAuthClient | undefined;
  /** The id of the login that the grant comes from, if you keep it: at most 128 bytes of printable ASCII. */
  readonly correlationId?: string | undefined;
}

/** A scope that was granted although the client did not ask for it, or did not hold it. */
export interface AddedScope {
  readonly scope: string;
  /** `BASELINE`, `DEFAULT`, `REGISTERED`, `STEP_UP` or `ALWAYS`. Newer servers may have more. */
  readonly origin: string;
  /** The client rule that brought it; empty if none did. */
  readonly rule: string;
}

/** What one audience grants. */
export interface AudienceGrant {
  /** Spelled as in the policy. */
  readonly audience: string;
  readonly scope: string;
}

/** What the client holds from now on. */
export interface RegistrationAnswer {
  /** Store it with the client and return it to the client (RFC 7591 section 3.2.1). Never empty. */
  readonly scope: string;
  readonly added: readonly AddedScope[];
  /** What was asked for and dropped; empty unless the policy drops. */
  readonly refused: readonly RefusedScope[];
  readonly policy: PolicyVersion;
  readonly decisionId: string;
}

/** What the authorize request gets. */
export interface AuthorizeAnswer {
  /** For the consent page and the code. Not for the stored client. Never empty. */
  readonly scope: string;
  readonly added: readonly AddedScope[];
  /** What was asked for and dropped; empty unless the policy drops. */
  readonly refused: readonly RefusedScope[];
  /** Which audience grants which scopes. A grant must not be used at another audience. */
  readonly audienceGrants: readonly AudienceGrant[];
  /** For a check of the server's own within this request. **Never store it**: a step-up would become a registration. */
  readonly effectiveRegisteredScope: string;
  readonly policy: PolicyVersion;
  readonly decisionId: string;
}

/** What a token gets at the token endpoint. */
export interface TokenAnswer {
  /** For the access token, and for the response if it differs from what was asked (RFC 6749 section 5.1). Never empty. */
  readonly scope: string;
  /** What was asked for and dropped; empty unless the policy drops. */
  readonly refused: readonly RefusedScope[];
  /** Which audience grants which scopes. A grant must not be used at another audience. */
  readonly audienceGrants: readonly AudienceGrant[];
  readonly policy: PolicyVersion;
  readonly decisionId: string;
}

/** What the policy says about one audience. */
export interface AudienceDescription {
  readonly audience: string;
  readonly scopesSupported: readonly string[];
  /** What belongs into `scopes_supported` of discovery documents. */
  readonly advertisedScopes: readonly string[];
  readonly baselineClientScopes: readonly string[];
  readonly defaultClientScopes: readonly string[];
  readonly privilegedScopes: readonly string[];
  readonly stepUpScopes: readonly string[];
  readonly scopeMatching: string;
  /** Texts for consent pages, by scope. */
  readonly scopeDescriptions: Readonly<Record<string, string>>;
  readonly description: string;
  readonly aliases: readonly string[];
}
