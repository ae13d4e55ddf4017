// Makes oidc-provider ask Scopeward.
//
//     const provider = new (withScopeward(Provider, client))(issuer, configuration);
//
// The class asks at registration and its update (RFC 7591, RFC 7592); in one hook at the authorization endpoint, for pushed
// authorization requests (RFC 9126) and at device authorization (RFC 8628); and before the handlers of some grants at the token
// endpoint. The hook is a validator of `extraParams`: the server runs these after it has checked the client, its redirect URI and its
// request object. The server checks the stored scope before that, so until then it sees the client without scope: in a view of this
// request, since it caches its clients.

import { errors, type default as Provider, type AllClientMetadata, type Configuration, type KoaContextWithOIDC } from "oidc-provider";

import { assertionClaims, grantedBy, loginId, retryAfter, sourceOf, type AdapterOptions } from "./adapter.js";
import { OAuthClient, type ClientSource, type TokenGrant } from "./answers.js";
import type { Client } from "./client.js";
import { Denied, Unavailable } from "./errors.js";
import { isWithin } from "./wire.js";

/** The class of a provider. */
export type ProviderClass = new (issuer: string, configuration?: Configuration) => Provider;

type StoredClient = InstanceType<Provider["Client"]>;

/** What `withScopeward` can be told. */
export interface ProviderOptions extends AdapterOptions<StoredClient> {
  /**
   * What a JWT grant or a token exchange of your own stands for, where it is neither the `scope` of the assertion nor that of an access
   * token of this provider (`subject_token`). `undefined` if it names no scope. Your handler finds what may be issued in
   * `ctx.oidc.params.scope`, and has to verify what this function read.
   */
  readonly grantedScope?: ((ctx: KoaContextWithOIDC) => string | undefined | Promise<string | undefined>) | undefined;
}

/** The grants that are asked for at the token endpoint. What others issue was decided before. */
const TOKEN_GRANTS: Readonly<Record<string, TokenGrant>> = {
  refresh_token: "refresh",
  client_credentials: "client_credentials",
  "urn:ietf:params:oauth:grant-type:jwt-bearer": "jwt_bearer",
  "urn:ietf:params:oauth:grant-type:token-exchange": "token_exchange",
};

function tokenGrant(grantType: unknown): TokenGrant | undefined {
  return typeof grantType === "string" && Object.hasOwn(TOKEN_GRANTS, grantType) ? TOKEN_GRANTS[grantType] : undefined;
}

/** A name of `extraParams`; nobody has to send it. */
const HOOK = "scopeward";
const ASKED_ROUTES = new Set(["authorization", "pushed_authorization_request", "device_authorization", "backchannel_authentication"]);
const REGISTRATION_ROUTES = new Set(["registration", "client_update"]);

/**
 * The same class, of which each provider has its scopes decided by Scopeward.
 *
 * @param provider The `Provider` of oidc-provider, or a class of your own that extends it.
 * @param client Kept by the providers; close it when the server ends.
 * @param options Clients of `configuration.clients` are `static` unless `clientSource` says otherwise.
 */
export function withScopeward<P extends ProviderClass>(provider: P, client: Client, options: ProviderOptions = {}): P {
  const asker = new Asker(client, options);
  const Base = provider as unknown as typeof Extensible;

  class AskingProvider extends Base {
    #context: ContextClass | undefined;

    constructor(issuer: string, configuration: Configuration = {}) {
      super(issuer, { ...configuration, extraParams: withHook(configuration.extraParams, (ctx) => asker.check(ctx)) });
      const defaults = { application_type: "web", ...configuration.clientDefaults };
      const { adapter } = this.Client as unknown as { adapter: { upsert(id: string, payload: AllClientMetadata, ...rest: unknown[]): Promise<unknown> } };
      const upsert = adapter.upsert.bind(adapter);
      // The last step of a registration, before which the server has checked everything else.
      adapter.upsert = async (id, payload, ...rest) => {
        const { ctx } = Base;
        const isRegistration = ctx !== undefined && (ctx.oidc.provider as unknown) === this && REGISTRATION_ROUTES.has(ctx.oidc.route);
        return upsert(id, isRegistration ? await asker.expand(ctx, payload, defaults) : payload, ...rest);
      };
      this.use(async (ctx, next) => {
        await next();
        const scope = (ctx["oidc"] as AskingContext | undefined)?.[REGISTERED];
        const { body } = ctx;
        if (scope !== undefined && typeof body === "object" && body !== null && "client_id" in body) Object.assign(body, { scope });
      });
    }

    // The server registers its own grants by this method as well.
    override registerGrantType(name: string, handler: Handler, ...rest: unknown[]): void {
      const grant = tokenGrant(name);
      const asking: Handler = grant === undefined ? handler : (ctx) => asker.issue(ctx, grant, handler);
      super.registerGrantType(name, asking, ...rest);
    }

    override get OIDCContext(): ContextClass {
      return (this.#context ??= askingContext(super.OIDCContext));
    }
  }
  Object.defineProperty(AskingProvider, "name", { value: provider.name });
  return AskingProvider as unknown as P;
}

declare class Extensible extends Provider {
  static get ctx(): KoaContextWithOIDC | undefined;
  // @ts-expect-error: the types have a property, and it is an accessor.
  get OIDCContext(): ContextClass;
  // @ts-expect-error: the types have a handler for each kind of parameters.
  registerGrantType(name: string, handler: Handler, ...rest: unknown[]): void;
}

type Handler = (ctx: KoaContextWithOIDC) => void | Promise<void>;

type ExtraParams = Configuration["extraParams"];
type Hook = (ctx: KoaContextWithOIDC) => Promise<void>;

/** The hook before all others, so that these see what was granted. */
function withHook(extraParams: ExtraParams, hook: Hook): ExtraParams {
  const isList = Array.isArray(extraParams) || (extraParams as unknown) instanceof Set;
  const others = isList ? Object.fromEntries([...(extraParams as Iterable<string>)].map((name) => [name, null])) : extraParams;
  return { [HOOK]: hook, ...(others as object) } as ExtraParams;
}

const REQUESTED = Symbol("the scope parameter as received");
const ASKED_BODY_SCOPE = Symbol("the scope of a registration as received");
const REGISTERED = Symbol("the scope that was registered");
const STORED = Symbol("the client with its scope");
const HAS_READ = Symbol("the scope parameter was read");
const BODY = Symbol("body");

interface AskingContext {
  [REQUESTED]?: string | undefined;
  [ASKED_BODY_SCOPE]?: string | undefined;
  [REGISTERED]?: string;
  [STORED]?: StoredClient;
}

interface ServerContext {
  readonly route: string;
  readonly entities: Record<string, unknown>;
  readonly prompts: Set<string>;
  readonly params?: Record<string, unknown>;
  entity(key: string, value: unknown): void;
}

type ContextClass = new (...args: never[]) => ServerContext;

function askingContext(context: ContextClass): ContextClass {
  return class extends context implements AskingContext {
    [REQUESTED]?: string | undefined;
    [ASKED_BODY_SCOPE]?: string | undefined;
    [STORED]?: StoredClient;
    [HAS_READ] = false;
    [BODY]: unknown;

    override entity(key: string, value: unknown): void {
      if (key !== "Client" || value === undefined) return super.entity(key, value);
      if (this.route === "token") this[STORED] = value as StoredClient;
      if (ASKED_ROUTES.has(this.route)) {
        this[STORED] = value as StoredClient;
        return super.entity(key, withoutScope(this[STORED]));
      }
      const scope = (this as AskingContext)[REGISTERED];
      if (this.route === "registration" && scope !== undefined) Object.assign(value as object, { scope });
      super.entity(key, value);
    }

    // The server's check of the scope reads this first, and then refuses blanks at the ends and drops what it does not give
    // (`offline_access` without `prompt=consent`). Request objects and pushed requests are loaded by then.
    override get prompts(): Set<string> {
      const scope = this.params?.["scope"];
      if (ASKED_ROUTES.has(this.route) && !this[HAS_READ]) {
        this[HAS_READ] = true;
        if (typeof scope === "string" && this.params !== undefined) {
          this[REQUESTED] = scope;
          this.params["scope"] = scope.split(" ").filter((token) => token !== "").join(" ") || undefined;
        }
      }
      return super.prompts;
    }

    get body(): unknown {
      return this[BODY];
    }

    // A registration is checked without its scope, of which the policy may drop what this server does not know; a token request is
    // too, of which the server would refuse blanks at the ends and what the policy may drop.
    set body(body: unknown) {
      if (this.route === "token" && typeof body === "object" && body !== null) {
        const form = body as Record<string, unknown>;
        if (tokenGrant(form["grant_type"]) !== undefined && typeof form["scope"] === "string") {
          this[REQUESTED] = form["scope"];
          delete form["scope"];
        }
      }
      if (REGISTRATION_ROUTES.has(this.route) && typeof body === "object" && body !== null && "scope" in body) {
        const { scope, ...rest } = body;
        if (typeof scope === "string" || scope === null) {
          this[ASKED_BODY_SCOPE] = scope ?? undefined;
          body = rest;
        }
      }
      this[BODY] = body;
    }
  };
}

/** A view of the client. The client itself is cached and stays as it is. */
function withoutScope(client: StoredClient): StoredClient {
  return new Proxy(client, {
    get(target, name) {
      if (name === "scope") return undefined;
      const value: unknown = Reflect.get(target, name, target); // private members want the client itself
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

interface Granted {
  /** `undefined` if it names none. */
  readonly scope?: string | undefined;
  readonly resource?: string | string[] | undefined;
}

class Asker {
  readonly #client: Client;
  readonly #options: ProviderOptions;

  constructor(client: Client, options: ProviderOptions) {
    this.#client = client;
    this.#options = options;
  }

  /** The metadata to store. */
  async expand(ctx: KoaContextWithOIDC, metadata: AllClientMetadata, defaults: object): Promise<AllClientMetadata> {
    const oidc = ctx.oidc as unknown as AskingContext & { client?: StoredClient };
    const isUpdate = ctx.oidc.route === "client_update";
    const { audience } = this.#options;
    let scope: string;
    try {
      const answer = await this.#client.expandRegistrationScopes({
        scope: oidc[ASKED_BODY_SCOPE],
        client: OAuthClient.fromMetadata({ ...defaults, ...metadata }, { clientId: metadata.client_id }),
        audiences: audience,
        previousScope: isUpdate ? oidc.client?.scope : undefined,
      });
      scope = answer.scope;
    } catch (failure) {
      throw serverError(ctx, failure);
    }
    try {
      // Refuses what the server's configuration does not have, as it would each time it reads the client.
      new (ctx.oidc.provider.Client as unknown as new (metadata: object, ctx: KoaContextWithOIDC) => StoredClient)({ ...metadata, scope }, ctx);
    } catch (cause) {
      const message = `\`scopes\` of the provider's configuration lacks some of \`${scope}\`, which the policy gives`;
      throw serverError(ctx, new Unavailable(message, { code: "FAILED_PRECONDITION", kind: "registration", cause }));
    }
    oidc[REGISTERED] = scope;
    return { ...metadata, scope };
  }

  /** Puts what is granted into the parameters. */
  async check(ctx: KoaContextWithOIDC): Promise<void> {
    const oidc = ctx.oidc as unknown as AskingContext & ServerContext;
    const stored = oidc[STORED];
    const params = ctx.oidc.params as Record<string, unknown> | undefined;
    if (stored === undefined || params === undefined) throw new Error("the hook ran without a client");
    const source = this.#sourceOf(stored);
    const { client_id, redirect_uri, state, code_challenge, nonce } = params;
    const isLogin = state !== undefined || code_challenge !== undefined || nonce !== undefined;
    try {
      const answer = await this.#client.checkAuthorizeScopes({
        scope: oidc[REQUESTED],
        registeredScope: source === "dcr" ? stored.scope : undefined,
        audiences: (params["resource"] as string | string[] | undefined) ?? this.#options.audience,
        client: OAuthClient.fromMetadata(stored.metadata(), { clientId: stored.clientId, source }),
        correlationId: isLogin ? loginId(client_id, redirect_uri, state, code_challenge, nonce) : undefined,
      });
      params["scope"] = answer.scope;
    } catch (failure) {
      throw serverError(ctx, failure);
    }
    oidc.entities["Client"] = stored;
  }

  /** Calls the handler of a grant with what may be issued as the scope that is requested. */
  async issue(ctx: KoaContextWithOIDC, grant: TokenGrant, handler: Handler): Promise<void> {
    const oidc = ctx.oidc as unknown as AskingContext & ServerContext;
    const stored = oidc[STORED];
    const params = ctx.oidc.params as Record<string, unknown> | undefined;
    if (stored === undefined || params === undefined) throw new Error("a grant without a client");
    const about = await this.#granted(ctx, grant, params);
    if (about === undefined) return handler(ctx); // which refuses such a token
    const source = this.#sourceOf(stored);
    let scope: string;
    try {
      // Before the handler uses a refresh token up: where there is no answer, the client tries again with it.
      const answer = await this.#client.checkTokenScopes({
        grant,
        scope: oidc[REQUESTED],
        grantedScope: about.scope,
        registeredScope: source === "cimd" ? undefined : stored.scope,
        audiences: (params["resource"] as string | string[] | undefined) ?? about.resource ?? this.#options.audience,
        client: OAuthClient.fromMetadata(stored.metadata(), { clientId: stored.clientId, source }),
      });
      scope = answer.scope;
    } catch (failure) {
      throw serverError(ctx, failure);
    }
    params["scope"] = scope;
    // What the client holds is more than its stored scope, with which the server would compare.
    if (grant !== "refresh") oidc.entities["Client"] = withoutScope(stored);
    try {
      await handler(ctx);
    } finally {
      oidc.entities["Client"] = stored;
    }
    const issued = (ctx.body as { scope?: unknown } | undefined)?.scope ?? "";
    if (typeof issued !== "string" || !isWithin(issued, scope.split(" "))) {
      const message = `the handler issued \`${String(issued)}\`, and was told \`${scope}\``;
      throw serverError(ctx, new Unavailable(message, { code: "FAILED_PRECONDITION", kind: "token" }));
    }
  }

  /** What the grant stands for; `undefined` for a refresh token that the handler will refuse. */
  async #granted(ctx: KoaContextWithOIDC, grant: TokenGrant, params: Record<string, unknown>): Promise<Granted | undefined> {
    const { provider } = ctx.oidc;
    if (grant === "refresh") {
      const value = params["refresh_token"];
      const token = typeof value === "string" ? await provider.RefreshToken.find(value, { ignoreExpiration: true }) : undefined;
      if (token === undefined || token.clientId !== ctx.oidc.client?.clientId || token.isExpired || token.consumed) return undefined;
      return { scope: token.scope ?? "", resource: token.resource };
    }
    if (grant === "client_credentials") return {};
    if (this.#options.grantedScope !== undefined) return { scope: await this.#options.grantedScope(ctx) };
    if (grant === "jwt_bearer") {
      const claims = assertionClaims(params["assertion"]);
      return { scope: grantedBy(claims), resource: typeof claims["resource"] === "string" ? claims["resource"] : undefined };
    }
    const subject = params["subject_token"];
    const token = typeof subject === "string" ? await provider.AccessToken.find(subject) : undefined;
    return { scope: token && (token.scope ?? "") };
  }

  #sourceOf(stored: StoredClient): ClientSource {
    if (this.#options.clientSource !== undefined) return this.#options.clientSource(stored);
    return (stored as { noManage?: boolean }).noManage === true ? "static" : sourceOf(stored.clientId);
  }
}

/** The error as the server sends it: in a redirect with `state`, or as JSON. */
function serverError(ctx: KoaContextWithOIDC, failure: unknown): unknown {
  if (!(failure instanceof Denied) && !(failure instanceof Unavailable)) return failure;
  const Failure = errors.OIDCProviderError as unknown as new (status: number, message: string, options: ErrorOptions) => errors.OIDCProviderError;
  if (failure instanceof Unavailable) ctx.set("retry-after", retryAfter(failure));
  return Object.assign(new Failure(failure.httpStatus, failure.error, { cause: failure }), {
    error_description: failure.errorDescription,
    expose: true, // the server would make up an error of its own for 5xx
  });
}
