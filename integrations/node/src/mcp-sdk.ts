// Makes the authorization server of the MCP TypeScript SDK (`mcpAuthRouter`) ask Scopeward.
//
//     app.use(mcpAuthRouter({ provider: withScopeward(provider, client), issuerUrl }));
//
// The SDK validates no scope itself: what the provider's `authorize` grants is granted.

import type { OAuthRegisteredClientsStore } from "@modelcontextprotocol/sdk/server/auth/clients.js";
import { CustomOAuthError, InvalidClientMetadataError, ServerError } from "@modelcontextprotocol/sdk/server/auth/errors.js";
import type { AuthorizationParams, OAuthServerProvider } from "@modelcontextprotocol/sdk/server/auth/provider.js";
import type { OAuthClientInformationFull } from "@modelcontextprotocol/sdk/shared/auth.js";

import { loginId, sourceOf, type AdapterOptions } from "./adapter.js";
import { OAuthClient } from "./answers.js";
import type { Client } from "./client.js";
import { Denied, Unavailable } from "./errors.js";

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
  options: AdapterOptions<OAuthClientInformationFull> = {},
): P {
  const { audience } = options;
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

  const members: Partial<OAuthServerProvider> = {
    authorize,
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
