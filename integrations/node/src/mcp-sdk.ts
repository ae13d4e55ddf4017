// Makes the authorization server of the MCP TypeScript SDK (`mcpAuthRouter`) ask Scopeward.
//
//     app.use(mcpAuthRouter({ provider: withScopeward(provider, client), issuerUrl }));
//
// The SDK validates no scope itself: what the provider's `authorize` grants is granted. Nor does it know what a refresh token stands for,
// so `refreshGrant` has to say that.

import type { OAuthRegisteredClientsStore } from "@modelcontextprotocol/sdk/server/auth/clients.js";
import { CustomOAuthError, InvalidClientMetadataError, InvalidGrantError, ServerError } from "@modelcontextprotocol/sdk/server/auth/errors.js";
import type { AuthorizationParams, OAuthServerProvider } from "@modelcontextprotocol/sdk/server/auth/provider.js";
import type { OAuthClientInformationFull, OAuthTokens } from "@modelcontextprotocol/sdk/shared/auth.js";

import { loginId, sourceOf, type AdapterOptions } from "./adapter.js";
import { OAuthClient } from "./answers.js";
import type { Client } from "./client.js";
import { Denied, Unavailable } from "./errors.js";
import { isWithin } from "./wire.js";

/** What a refresh token stands for. */
export interface RefreshGrant {
  /** What was granted with it. */
  readonly scopes: readonly string[];
  /** The resource that it was granted for (RFC 8707). */
  readonly resource?: URL | string | undefined;
}

/** What `withScopeward` can be told. */
export interface McpOptions extends AdapterOptions<OAuthClientInformationFull> {
  /**
   * Looks a refresh token up, and leaves it as it is; `undefined` if the client has no such token. Without this function refreshes are
   * not asked for: the provider alone decides, and a warning says so unless this is `null`.
   */
  readonly refreshGrant?:
    | ((client: OAuthClientInformationFull, refreshToken: string) => RefreshGrant | undefined | Promise<RefreshGrant | undefined>)
    | null
    | undefined;
}

type Register = NonNullable<OAuthRegisteredClientsStore["registerClient"]>;

/**
 * The provider, with its scopes decided by Scopeward: an object with all members of the one that is given.
 *
 * @param provider Any `OAuthServerProvider`, `ProxyOAuthServerProvider` included.
 * @param client Kept by the provider; close it when the server ends.
 */
export function withScopeward<P extends OAuthServerProvider>(
  provider: P,
  client: Client,
  options: McpOptions = {},
): P {
  const { audience, refreshGrant } = options;
  if (refreshGrant === undefined) {
    const message = "refresh requests are left to the provider: without `refreshGrant` nobody knows what a refresh token stands for";
    process.emitWarning(message, { type: "ScopewardWarning", code: "SCOPEWARD_REFRESH_NOT_ASKED" });
  }
  const sourceOfClient = options.clientSource ?? ((stored) => sourceOf(stored.client_id));
  const stores = new WeakMap<OAuthRegisteredClientsStore, OAuthRegisteredClientsStore>();

  function asking(store: OAuthRegisteredClientsStore): OAuthRegisteredClientsStore {
    const known = stores.get(store);
    if (known !== undefined) return known;
    const registerClient: Register = async (metadata) => {
      const { client_id: clientId } = metadata as Partial<OAuthClientInformationFull>;
      try {
        const about = OAuthClient.fromMetadata(metadata, { clientId });
        const { scope } = await client.expandRegistrationScopes({ scope: metadata.scope, client: about, audiences: audience });
        const registered = await store.registerClient?.({ ...metadata, scope });
        if (registered === undefined) throw new TypeError("the store registers no clients");
        return { ...registered, scope: registered.scope ?? scope };
      } catch (failure) {
        if (failure instanceof Denied) throw new InvalidClientMetadataError(failure.errorDescription);
        // The SDK has no error that is answered with 503.
        if (failure instanceof Unavailable) throw withCause(new ServerError(failure.errorDescription), failure);
        throw failure;
      }
    };
    const made = view(store, store.registerClient === undefined ? {} : { registerClient });
    stores.set(store, made);
    return made;
  }

  const authorize: OAuthServerProvider["authorize"] = async (stored, params, response) => {
    const source = sourceOfClient(stored);
    const { redirectUri, state, codeChallenge, resource } = params;
    let decided: [OAuthClientInformationFull, AuthorizationParams];
    try {
      const answer = await client.checkAuthorizeScopes({
        scope: requestedScope(params.scopes),
        // What a metadata document says of scopes is no registration.
        registeredScope: source === "dcr" ? stored.scope : undefined,
        audiences: resource?.href ?? audience,
        client: OAuthClient.fromMetadata(stored, { clientId: stored.client_id, source }),
        correlationId: loginId(stored.client_id, redirectUri, state, codeChallenge),
      });
      decided = [{ ...stored, scope: answer.effectiveRegisteredScope }, { ...params, scopes: answer.scope.split(" ") }];
    } catch (failure) {
      if (!(failure instanceof Denied) && !(failure instanceof Unavailable)) throw failure;
      throw withCause(new CustomOAuthError(failure.error, failure.errorDescription), failure);
    }
    await provider.authorize(...decided, response);
  };

  const exchangeRefreshToken: OAuthServerProvider["exchangeRefreshToken"] = async (stored, refreshToken, scopes, resource) => {
    if (refreshGrant === undefined || refreshGrant === null) return provider.exchangeRefreshToken(stored, refreshToken, scopes, resource);
    const grant = await refreshGrant(stored, refreshToken);
    if (grant === undefined) throw new InvalidGrantError("refresh token does not exist");
    const source = sourceOfClient(stored);
    try {
      // Before the provider uses the refresh token up: where there is no answer, the client tries again with it.
      const { scope } = await client.checkTokenScopes({
        grant: "refresh",
        scope: requestedScope(scopes),
        grantedScope: grant.scopes.join(" "),
        audiences: resource?.href ?? grant.resource?.toString() ?? audience,
        client: OAuthClient.fromMetadata(stored, { clientId: stored.client_id, source }),
      });
      return issued(await provider.exchangeRefreshToken(stored, refreshToken, scope.split(" "), resource), scope);
    } catch (failure) {
      if (!(failure instanceof Denied) && !(failure instanceof Unavailable)) throw failure;
      const Failure = failure.error === "server_error" ? ServerError : CustomOAuthError.bind(undefined, failure.error);
      throw withCause(new Failure(failure.errorDescription), failure);
    }
  };

  const members: Partial<OAuthServerProvider> = {
    authorize,
    exchangeRefreshToken,
    get clientsStore() {
      return asking(provider.clientsStore);
    },
  };
  return view(provider, members as Partial<P>);
}

/** The parameter as received. The SDK has split it at its blanks, and has no scopes where there was none. */
function requestedScope(scopes: readonly string[] | undefined): string | undefined {
  return scopes === undefined || scopes.length === 0 ? undefined : scopes.join(" ");
}

/** The token response, which names its scope (RFC 6749 section 5.1). A provider that issued more than it was told issued nothing. */
function issued(tokens: OAuthTokens, scope: string): OAuthTokens {
  if (tokens.scope === undefined) return { ...tokens, scope };
  if (isWithin(tokens.scope, scope.split(" "))) return tokens;
  throw new Unavailable(`the provider issued \`${tokens.scope}\`, and was told \`${scope}\``, { code: "FAILED_PRECONDITION", kind: "token" });
}

function withCause<E extends Error>(error: E, cause: unknown): E {
  return Object.assign(error, { cause });
}

/** The object with some members replaced. Its own methods are called with the object itself, which may have private members. */
function view<T extends object>(target: T, members: Partial<T>): T {
  return new Proxy(target, {
    get(_, name) {
      if (name in members) return Reflect.get(members, name);
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
