// Makes the OAuth provider of Better Auth ask Scopeward.
//
//     plugins: [jwt(), withScopeward(oauthProvider({ ... }), client)]
//
// The plugin reads the stored client again wherever it compares scopes, and stores all scopes that it knows whatever a client asked
// for. So this answers both in the adapter of the database: a new client is stored with the answer, and while an authorize request is
// handled its client holds what was granted to that request, and nothing where nothing was decided. A refresh is decided there, too:
// when the plugin looks the user up, it has checked the client and the refresh token, and has not used the token up. A refresh that
// is not decided by then is refused before the token is used up.

import { tryGetCurrentAuthEndpointContext } from "@better-auth/core/context";
import type { oauthProvider } from "@better-auth/oauth-provider";
import { APIError, createAuthMiddleware } from "better-auth/api";

import { loginId, retryAfter, sourceOf, type AdapterOptions } from "./adapter.js";
import { OAuthClient, type ClientSource } from "./answers.js";
import type { Client } from "./client.js";
import { Denied, Unavailable } from "./errors.js";
import { isWithin, tokens } from "./wire.js";

type Plugin = ReturnType<typeof oauthProvider>;

/** A row of the table of clients, as far as it matters here. */
export interface StoredClient {
  readonly clientId: string;
  readonly scopes?: readonly string[] | null;
  readonly redirectUris?: readonly string[] | null;
  /** Set for a client of a metadata document. */
  readonly clientDiscoveryId?: string | null;
  readonly name?: string | null;
  readonly softwareId?: string | null;
  readonly softwareVersion?: string | null;
  readonly grantTypes?: readonly string[] | null;
  readonly applicationType?: string | null;
}

interface Decision {
  /** Of a registration: the scope as received. */
  readonly requested?: string | undefined;
  /** Of an authorize request: what is granted. */
  readonly granted?: readonly string[];
  readonly refresh?: Refresh;
}

/** A row of the table of refresh tokens, as far as it matters here. */
interface RefreshToken {
  readonly clientId: string;
  readonly scopes: readonly string[];
  readonly resources?: readonly string[] | null;
  readonly revoked?: unknown;
}

/** A refresh while it is handled. */
interface Refresh {
  /** The scope as received. */
  readonly requested: string | undefined;
  token?: RefreshToken;
  /** What the plugin is about to issue: the array that it has, which is changed in place. */
  scopes?: string[];
  isDecided: boolean;
}

interface Adapter {
  findOne(query: { model: string; where: unknown }): Promise<StoredClient | null>;
  create(query: { model: string; data: Record<string, unknown> }): Promise<unknown>;
  update(query: { model: string; where: unknown; update: Record<string, unknown> }): Promise<unknown>;
  incrementOne(query: { model: string }): Promise<unknown>;
  transaction(callback: (adapter: Adapter) => Promise<unknown>): Promise<unknown>;
}

interface EndpointContext {
  readonly path?: string;
  readonly body?: Record<string, unknown>;
  readonly scopeward?: Decision;
}

const AUTHORIZE = "/oauth2/authorize";
/** By whoever may register, and by a user who is logged in. */
const REGISTRATIONS = new Set(["/oauth2/register", "/oauth2/create-client"]);
const UPDATE = "/oauth2/update-client";
const TOKEN = "/oauth2/token";
const REFRESH_TOKEN = "oauthRefreshToken";
/** What their tokens have was decided before, or is decided by then. */
const DECIDED_GRANTS = new Set(["authorization_code", "refresh_token"]);

/**
 * The plugin, with its scopes decided by Scopeward.
 *
 * @param plugin What `oauthProvider` has made.
 * @param client Kept by the plugin; close it when the server ends.
 * @throws {RangeError} for `cachedTrustedClients` or `requestUriResolver`, which pass by what is asked here.
 */
export function withScopeward<P extends Plugin>(plugin: P, client: Client, options: AdapterOptions<StoredClient> = {}): P {
  const settings = plugin.options as {
    scopes?: readonly string[];
    cachedTrustedClients?: Set<string>;
    requestUriResolver?: unknown;
    schema?: { oauthClient?: { modelName?: string } };
  };
  if ((settings.cachedTrustedClients?.size ?? 0) > 0) throw new RangeError("`cachedTrustedClients` are not asked for: leave it out");
  if (settings.requestUriResolver !== undefined) throw new RangeError("`requestUriResolver` is not supported: its requests are resolved after they are decided");
  const clientModel = settings.schema?.oauthClient?.modelName ?? "oauthClient";
  const models = new Set(["oauthClient", clientModel]);
  const { audience } = options;
  const sourceOfClient = options.clientSource ?? ((stored): ClientSource => (stored.clientDiscoveryId ? "cimd" : sourceOf(stored.clientId)));
  let database: Adapter | undefined;

  function current(): EndpointContext {
    return (tryGetCurrentAuthEndpointContext() ?? {}) as EndpointContext;
  }

  /** The refresh that the endpoint that runs handles, if it handles one. */
  function currentRefresh(): Refresh | undefined {
    const { path, scopeward } = current();
    return path === TOKEN ? scopeward?.refresh : undefined;
  }

  /** The row as the endpoint that runs may see it. */
  function seen<T>(model: string, row: T): T {
    if (!models.has(model) || row === null || typeof row !== "object") return row;
    const { path, body, scopeward } = current();
    if (path === AUTHORIZE) return { ...row, scopes: scopeward?.granted ?? [] };
    return path === TOKEN && DECIDED_GRANTS.has(grantType(body)) ? { ...row, scopes: null } : row;
  }

  /** The row of the refresh token that is presented: of its scopes the plugin issues all, and what these are is decided later. */
  function presented(token: RefreshToken, refresh: Refresh): RefreshToken {
    const asked = tokens(refresh.requested ?? "");
    const scopes = asked.length === 0 ? [...token.scopes] : asked.filter((scope) => token.scopes.includes(scope));
    Object.assign(refresh, { token, scopes });
    // Once they are decided, the plugin looks here whether a refresh token was granted.
    return Object.defineProperty({ ...token }, "scopes", { enumerable: true, get: () => (refresh.isDecided ? token.scopes : scopes) });
  }

  /** Decides what the refresh that runs may issue. */
  async function narrow(adapter: Adapter, refresh: Refresh): Promise<void> {
    const { token, scopes, requested } = refresh;
    if (token === undefined || scopes === undefined || refresh.isDecided) return;
    const where = [{ field: "clientId", value: token.clientId }];
    const stored = (await adapter.findOne({ model: clientModel, where })) ?? { clientId: token.clientId };
    const source = sourceOfClient(stored);
    const { resource, scope } = (current().body ?? {}) as { resource?: unknown; scope?: unknown };
    try {
      const answer = await client.checkTokenScopes({
        grant: "refresh",
        scope: requested,
        grantedScope: token.scopes.join(" "),
        registeredScope: source === "dcr" ? stored.scopes?.join(" ") : undefined,
        audiences: resource === undefined ? (token.resources?.length ? token.resources : audience) : [resource].flat().map(String),
        client: about(stored, source),
      });
      scopes.splice(0, scopes.length, ...tokens(answer.scope));
      // A hook that returns a copy of the body brings `scope` back, and that is what the plugin issues.
      if (typeof scope === "string" && !isWithin(scope, scopes)) {
        throw new Unavailable("a hook brought `scope` back", { code: "FAILED_PRECONDITION", kind: "token" });
      }
      refresh.isDecided = true;
    } catch (failure) {
      throw apiError(failure);
    }
  }

  /** The members of a row with the answer of the policy for its scopes. `previous` is the row that they replace. */
  async function answered(data: Record<string, unknown>, requested: string | undefined, previous?: StoredClient): Promise<Record<string, unknown>> {
    try {
      const { scope } = await client.expandRegistrationScopes({
        scope: requested,
        client: about({ ...previous, ...(data as unknown as StoredClient) }, "dcr"),
        audiences: audience,
        previousScope: previous?.scopes?.join(" "),
      });
      const scopes = scope.split(" ");
      const unknown = scopes.filter((token) => settings.scopes?.includes(token) !== true);
      if (unknown.length > 0) {
        throw new Unavailable(`\`scopes\` of the plugin lacks ${unknown.join(" ")}`, { code: "FAILED_PRECONDITION", kind: "registration" });
      }
      return { ...data, scopes };
    } catch (failure) {
      throw apiError(failure);
    }
  }

  function asking(adapter: Adapter): Adapter {
    const members: Adapter = {
      findOne: async (query) => {
        const row = await adapter.findOne(query);
        const refresh = currentRefresh();
        if (row === null || refresh === undefined) return seen(query.model, row);
        if (query.model === "user") await narrow(adapter, refresh);
        return query.model === REFRESH_TOKEN ? presented(row as RefreshToken & StoredClient, refresh) : seen(query.model, row);
      },
      create: async (query) => {
        const { path = "", scopeward } = current();
        if (query.model === REFRESH_TOKEN && scopeward?.refresh?.token !== undefined) {
          // The grant stays as it was (RFC 6749 section 6).
          return adapter.create({ ...query, data: { ...query.data, scopes: scopeward.refresh.token.scopes } });
        }
        const isAsked = models.has(query.model) && REGISTRATIONS.has(path);
        const data = isAsked ? await answered(query.data, scopeward?.requested) : query.data;
        return seen(query.model, await adapter.create({ ...query, data }));
      },
      update: async (query) => {
        const { scopes } = query.update;
        const isAsked = models.has(query.model) && current().path === UPDATE && Array.isArray(scopes);
        const previous = isAsked ? ((await adapter.findOne({ model: query.model, where: query.where })) ?? undefined) : undefined;
        const update = isAsked ? await answered(query.update, scopes.join(" "), previous) : query.update;
        return seen(query.model, await adapter.update({ ...query, update }));
      },
      incrementOne: async (query) => {
        // Here the plugin revokes the refresh token. With `refreshTokenReuseInterval` it then stores its response, and sends that to
        // whoever presents the token again: nothing undecided may get there.
        if (query.model === REFRESH_TOKEN && currentRefresh()?.isDecided === false) {
          const message = "the refresh was not decided: another plugin's adapter may have looked the user up";
          throw apiError(new Unavailable(message, { code: "FAILED_PRECONDITION", kind: "token" }));
        }
        return adapter.incrementOne(query);
      },
      transaction: (callback) => adapter.transaction((transaction) => callback(asking(transaction))),
    };
    return { ...adapter, ...members };
  }

  const init: NonNullable<P["init"]> = async (context) => {
    database = context.adapter as unknown as Adapter;
    const result = (await plugin.init?.(context)) as { context?: object } | undefined;
    return { ...result, context: { ...result?.context, adapter: asking(database) } } as never;
  };

  const register = createAuthMiddleware(async (ctx) => {
    const { scope } = (ctx.body ?? {}) as { scope?: unknown };
    if (scope !== undefined && typeof scope !== "string") return; // refused by the plugin
    // Decided when everything else was checked, so the plugin sees no scope until then.
    return { context: { body: { ...ctx.body, scope: "" }, scopeward: { requested: scope } } };
  });

  const authorize = createAuthMiddleware(async (ctx) => {
    const { authorizeSettings } = ctx as unknown as { authorizeSettings?: { isAuthorize?: boolean } };
    const isForm = ctx.request?.method === "POST" && authorizeSettings === undefined;
    const parameters = ((isForm ? ctx.body : ctx.query) ?? {}) as Record<string, unknown>;
    const { client_id: clientId, redirect_uri: redirectUri, state, scope } = parameters;
    if (typeof clientId !== "string" || (scope !== undefined && typeof scope !== "string")) return; // refused by the plugin
    const where = [{ field: "clientId", value: clientId }];
    const row = (await database?.findOne({ model: clientModel, where })) ?? undefined;
    if (row === undefined && sourceOf(clientId) !== "cimd") return;
    const stored = row ?? { clientId, clientDiscoveryId: "unknown" };
    const isRegistered = row?.redirectUris?.some((uri) => isSameRedirectUri(uri, redirectUri)) === true;
    if (row !== undefined && !isRegistered) throw new APIError("BAD_REQUEST", { error: "invalid_redirect", error_description: "invalid redirect uri" });
    const source = sourceOfClient(stored);
    const { code_challenge, nonce, resource } = parameters;
    try {
      const answer = await client.checkAuthorizeScopes({
        scope,
        registeredScope: source === "dcr" ? stored.scopes?.join(" ") : undefined,
        audiences: resource === undefined ? audience : [resource].flat().map(String),
        client: about(stored, source),
        correlationId: loginId(clientId, redirectUri, state, code_challenge, nonce),
      });
      const decided = { ...parameters, scope: answer.scope };
      return { context: { ...(isForm ? { body: decided } : { query: decided }), scopeward: { granted: answer.scope.split(" ") } } };
    } catch (failure) {
      if (!(failure instanceof Denied) && !(failure instanceof Unavailable)) throw failure;
      if (!isRegistered) throw apiError(failure); // never to a redirect URI that nobody has checked
      const url = new URL(String(redirectUri));
      const issuer = ctx.context.options.plugins?.find(({ id }) => id === "jwt")?.options as { jwt?: { issuer?: string } } | undefined;
      for (const [name, value] of Object.entries(failure.oauthError())) url.searchParams.set(name, value);
      if (typeof state === "string") url.searchParams.set("state", state);
      url.searchParams.set("iss", issuer?.jwt?.issuer ?? ctx.context.baseURL);
      const isFetch = ctx.request?.headers.get("sec-fetch-mode") === "cors" || ctx.headers?.get("accept")?.includes("application/json") === true;
      if (isFetch) return { redirect: true, url: url.href }; // as the plugin does
      throw ctx.redirect(url.href);
    }
  });

  const refresh = createAuthMiddleware(async (ctx) => {
    const body = ctx.body as Record<string, unknown>;
    const { scope } = body;
    if (scope !== undefined && typeof scope !== "string") return; // refused by the plugin
    delete body["scope"]; // the plugin would compare it before the policy is asked
    const state: Refresh = { requested: scope, isDecided: false };
    return { context: { scopeward: { refresh: state } } };
  });

  // A refresh that nobody decided is not sent, nor one with more than the answer. The response to a token that was rotated a moment
  // ago (`refreshTokenReuseInterval`) was decided then, since a token is only rotated by a refresh that was decided.
  const refreshed = createAuthMiddleware(async (ctx) => {
    const { token, scopes, isDecided } = (ctx as unknown as EndpointContext).scopeward?.refresh ?? {};
    const issued = ctx.context.returned as { access_token?: unknown; scope?: unknown } | undefined;
    if (issued?.access_token === undefined || token?.revoked) return;
    if (isDecided === true && typeof issued.scope === "string" && isWithin(issued.scope, scopes ?? [])) return;
    throw apiError(new Unavailable("the plugin issued what was not decided", { code: "FAILED_PRECONDITION", kind: "token" }));
  });
  const isRefresh = ({ path, body }: EndpointContext): boolean => path === TOKEN && grantType(body) === "refresh_token";

  const before = [
    ...(plugin.hooks?.before ?? []),
    { matcher: ({ path = "" }: EndpointContext) => REGISTRATIONS.has(path), handler: register },
    { matcher: (ctx: EndpointContext) => ctx.path === AUTHORIZE, handler: authorize },
    { matcher: isRefresh, handler: refresh },
  ];
  const after = [...(plugin.hooks?.after ?? []), { matcher: isRefresh, handler: refreshed }];
  return { ...plugin, init, hooks: { ...plugin.hooks, before, after } };
}

/** As the plugin reads it. */
function grantType(body: Record<string, unknown> | undefined): string {
  const value = body?.["grant_type"];
  return typeof value === "string" ? value.trim() : "";
}

function about(stored: StoredClient, source: ClientSource): OAuthClient {
  return {
    clientId: stored.clientId,
    source,
    clientName: stored.name ?? "",
    softwareId: stored.softwareId ?? "",
    softwareVersion: stored.softwareVersion ?? "",
    redirectUris: stored.redirectUris ?? [],
    grantTypes: stored.grantTypes ?? [],
    applicationType: stored.applicationType ?? "",
  };
}

/** Whether the plugin will take it too: equal, or http on loopback with another port (RFC 8252 section 7.3). */
function isSameRedirectUri(registered: string, requested: unknown): boolean {
  if (registered === requested) return true;
  const withoutPort = /^(http:\/\/(?:localhost|127\.0\.0\.1|\[::1\]))(?::\d*)?(?=[/?]|$)([^#]*)$/;
  const [own, other] = [withoutPort.exec(registered), withoutPort.exec(String(requested))];
  return own !== null && other !== null && own[1] === other[1] && own[2] === other[2];
}

function apiError(failure: unknown): unknown {
  if (!(failure instanceof Denied) && !(failure instanceof Unavailable)) return failure;
  const status = ({ 400: "BAD_REQUEST", 500: "INTERNAL_SERVER_ERROR", 503: "SERVICE_UNAVAILABLE" } as const)[failure.httpStatus];
  const headers = failure instanceof Unavailable ? { "Retry-After": retryAfter(failure) } : {};
  return Object.assign(new APIError(status, { ...failure.oauthError() }, headers), { cause: failure });
}
