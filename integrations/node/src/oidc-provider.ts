// Makes oidc-provider ask Scopeward.
//
//     const provider = new (withScopeward(Provider, client))(issuer, configuration);
//
// The class asks at four places: registration and its update (RFC 7591, RFC 7592), and, in one hook, the authorization endpoint,
// pushed authorization requests (RFC 9126) and device authorization (RFC 8628). The hook is a validator of `extraParams`: the
// server runs these after it has checked the client, its redirect URI and its request object. The server checks the stored scope
// before that, so until then it sees the client without scope: in a view of this request, since it caches its clients.

import { errors, type default as Provider, type AllClientMetadata, type Configuration, type KoaContextWithOIDC } from "oidc-provider";

import { loginId, retryAfter, sourceOf, type AdapterOptions } from "./adapter.js";
import { OAuthClient, type ClientSource } from "./answers.js";
import type { Client } from "./client.js";
import { Denied, Unavailable } from "./errors.js";

/** The class of a provider. */
export type ProviderClass = new (issuer: string, configuration?: Configuration) => Provider;

type StoredClient = InstanceType<Provider["Client"]>;

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
export function withScopeward<P extends ProviderClass>(provider: P, client: Client, options: AdapterOptions<StoredClient> = {}): P {
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
}

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

    // A registration is checked without its scope, of which the policy may drop what this server does not know.
    set body(body: unknown) {
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

class Asker {
  readonly #client: Client;
  readonly #options: AdapterOptions<StoredClient>;

  constructor(client: Client, options: AdapterOptions<StoredClient>) {
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
