// The token endpoint of each server that asks there: what was granted once, under the policy of now.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, afterEach, before, describe, test } from "node:test";

import { Client } from "scopeward";
import { withScopeward } from "scopeward/mcp-sdk";

import { EXAMPLE as BETTER_AUTH } from "../examples/better-auth.mjs";
import { Login, OAuthFailure, POLICY, RESOURCE, served } from "../examples/demo.mjs";
import { EXAMPLE as MCP_SDK, MemoryProvider } from "../examples/mcp-sdk.mjs";
import { EXAMPLE as OIDC_PROVIDER } from "../examples/oidc-provider.mjs";
import { oldServer } from "./old-server.mjs";
import { cleanup, eventually, restored, shared, started } from "./service.mjs";

/**
 * The servers; the status of a refresh without an answer that passes by itself: the MCP SDK has none but 400 for that; and what has to be
 * granted for a refresh token.
 */
const SERVERS = {
  "oidc-provider": { example: OIDC_PROVIDER, unavailable: 503, needed: [] },
  "mcp-sdk": { example: MCP_SDK, unavailable: 400, needed: [] },
  "better-auth": { example: BETTER_AUTH, unavailable: 503, needed: ["offline_access"] },
};
const WITHOUT_PROFILE = POLICY.replace("profile, ", "");
const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";

/** @param {string} rules */
function withToken(rules) {
  return POLICY.replace("    authorization:\n", `    token: {${rules}}\n    authorization:\n`);
}

/** @param {Record<string, any>} answer */
function scopes(answer) {
  return new Set(answer["scope"].split(" "));
}

/** @param {Promise<unknown>} attempt @param {number} status @param {string} error */
async function refused(attempt, status, error) {
  const failure = await attempt.then((granted) => assert.fail(`granted: ${JSON.stringify(granted)}`), (reason) => reason);
  assert(failure instanceof OAuthFailure, String(failure));
  assert.deepEqual([failure.status, failure.error], [status, error], String(failure));
  const description = failure.answer["error_description"];
  assert(description.length <= 512 && !description.includes("127.0.0.1"), description);
  return description;
}

const isTransient = (/** @type {any} */ failure) => failure.error === "temporarily_unavailable" || failure.status >= 500;

for (const [name, { example, unavailable, needed }] of Object.entries(SERVERS)) {
  describe(`refresh at ${name}`, () => {
    const service = shared();
    /** @type {Awaited<ReturnType<typeof served>>} */
    let server;
    /** @type {Login} */
    let login;
    let isTouched = false;

    before(async () => {
      server = await served(example, new Client(service.target, { deadline: 5000 }));
      login = new Login(example, server.base);
    });
    after(() => server.close());
    afterEach(async () => {
      if (!isTouched) return;
      isTouched = false;
      await restored(service, () => login.register("openid"), isTransient);
    });

    /** @param {string} registered @param {string} asked */
    async function loggedIn(registered, asked, user = login) {
      const client = await user.register(registered);
      return { client, tokens: await user.login(client, [asked, ...needed].join(" ")) };
    }

    /** What is left of such a login. @param {string[]} kept */
    function left(...kept) {
      return new Set([...kept, ...needed]);
    }

    test("loses what the policy withdrew", async () => {
      isTouched = true;
      const { client, tokens } = await loggedIn("openid profile", "openid profile");
      await service.writePolicy(WITHOUT_PROFILE);
      const fresh = await login.refresh(client, tokens);
      assert.deepEqual(scopes(fresh), left("openid"));
      await service.writePolicy(POLICY);
      // They keep the grant with the new refresh token (RFC 6749 section 6).
      assert.deepEqual(scopes(await login.refresh(client, fresh)), left("openid", "profile"));
    });

    test("gains nothing", async () => {
      isTouched = true;
      const { client, tokens } = await loggedIn("openid profile", "openid");
      const wider = POLICY.replace("baselineClientScopes: [offline_access]", 'baselineClientScopes: [offline_access, "mcp:read", profile]');
      await service.writePolicy(wider.replace("authorization:\n", "authorization:\n      alwaysGrantScopes: [offline_access, profile]\n"));
      assert(scopes(await login.login(client, "openid")).has("profile"));
      const fresh = await login.refresh(client, tokens);
      assert.deepEqual(scopes(fresh), left("openid"));
      assert.deepEqual(scopes(await login.refresh(client, fresh)), left("openid"));
    });

    test("asks for less", async () => {
      const { client, tokens } = await loggedIn("openid profile", "openid profile offline_access");
      assert.deepEqual(scopes(await login.refresh(client, tokens, " openid  offline_access ")), new Set(["openid", "offline_access"]));
    });

    for (const scope of ["", "   "]) {
      test(`a blank scope is omitted: ${JSON.stringify(scope)}`, async () => {
        const { client, tokens } = await loggedIn("openid", "openid offline_access");
        assert.deepEqual(scopes(await login.refresh(client, tokens, scope)), new Set(["openid", "offline_access"]));
      });
    }

    for (const scope of ["openid profile", "admin", "root", "nonsense", 'openid "', "x".repeat(600)]) {
      test(`a refresh for more is refused and costs nothing: ${scope.slice(0, 20)}`, async () => {
        const { client, tokens } = await loggedIn("openid profile", "openid");
        await refused(login.refresh(client, tokens, scope), 400, "invalid_scope");
        assert.deepEqual(scopes(await login.refresh(client, tokens)), left("openid"));
      });
    }

    test("what was granted and is not supported any more is dropped", async () => {
      isTouched = true;
      const { client, tokens } = await loggedIn("openid profile", "openid profile");
      await service.writePolicy(WITHOUT_PROFILE);
      assert.deepEqual(scopes(await login.refresh(client, tokens, "openid profile")), new Set(["openid"]));
    });

    test("what exceeds the grant is dropped where the policy says so", async () => {
      isTouched = true;
      const { client, tokens } = await loggedIn("openid profile", "openid");
      await service.writePolicy(withToken("exceedingScopes: drop"));
      assert.deepEqual(scopes(await login.refresh(client, tokens, "openid profile")), new Set(["openid"]));
    });

    test("what is not supported any more is refused where the policy says so", async () => {
      isTouched = true;
      const { client, tokens } = await loggedIn("openid profile", "openid profile");
      await service.writePolicy(withToken("unsupportedScopes: reject").replace("profile, ", ""));
      assert.match(await refused(login.refresh(client, tokens, "openid profile"), 400, "invalid_scope"), /profile/);
    });

    test("nothing that is left is denied", async () => {
      isTouched = true;
      const { client, tokens } = await loggedIn("openid profile", "openid profile");
      await service.writePolicy(`audiences: {${RESOURCE}: {scopesSupported: ["mcp:read"]}}\n`);
      await refused(login.refresh(client, tokens), 400, "invalid_scope");
      await service.writePolicy(POLICY);
      assert.deepEqual(scopes(await login.refresh(client, tokens)), left("openid", "profile"));
      const grants = (await service.eventsOf(client["client_id"])).map((event) => event["grant"]);
      assert(grants.includes("TOKEN_GRANT_REFRESH"), String(grants));
    });

    test("a foreign, a used and an unknown refresh token are the server's to refuse", async () => {
      const { client, tokens } = await loggedIn("openid", "openid");
      await refused(login.refresh(await login.register("openid"), tokens), 400, "invalid_grant");
      await refused(login.refresh(client, { refresh_token: "unknown" }), 400, "invalid_grant");
      await login.refresh(client, tokens);
      await refused(login.refresh(client, tokens), 400, "invalid_grant");
    });

    test("down and back", async () => {
      isTouched = true;
      const { client, tokens } = await loggedIn("openid", "openid offline_access");
      await service.stop();
      for (const scope of [undefined, "openid", "root"]) {
        await refused(login.refresh(client, tokens, scope), unavailable, "temporarily_unavailable");
      }
      await service.start();
      // The refresh token was not used up.
      assert.deepEqual(scopes(await eventually(() => login.refresh(client, tokens), isTransient)), new Set(["openid", "offline_access"]));
    });

    test("a service that hangs", async (t) => {
      isTouched = true;
      const hasty = await served(example, new Client(service.target, { deadline: 300 }));
      cleanup(t, () => hasty.close());
      const impatient = new Login(example, hasty.base);
      const { client, tokens } = await eventually(() => loggedIn("openid", "openid", impatient), isTransient);
      await service.pause();
      await refused(impatient.refresh(client, tokens), unavailable, "temporarily_unavailable");
      service.resume();
      assert.deepEqual(scopes(await eventually(() => impatient.refresh(client, tokens), isTransient)), left("openid"));
    });

    test("a service without the question", async (t) => {
      const own = await served(example, new Client(await oldServer(t, service.target, []), { deadline: 5000 }));
      cleanup(t, () => own.close());
      const login = new Login(example, own.base);
      const { client, tokens } = await loggedIn("openid", "openid", login);
      for (let count = 0; count < 2; count++) await refused(login.refresh(client, tokens), 500, "server_error");
    });

    test("an answer that widens is none", async (t) => {
      const faults = { missing: [], changed: {}, hasTokens: true };
      const own = await served(example, new Client(await oldServer(t, service.target, faults), { deadline: 5000 }));
      cleanup(t, () => own.close());
      const login = new Login(example, own.base);
      const { client, tokens } = await loggedIn("openid", "openid", login);
      faults.changed = { scope: "openid admin" };
      await refused(login.refresh(client, tokens), 500, "server_error");
      faults.changed = {};
      assert.deepEqual(scopes(await login.refresh(client, tokens)), left("openid"));
    });
  });
}

describe("the provider of the MCP SDK", () => {
  const service = shared();

  /** @param {import("node:test").TestContext} t @param {MemoryProvider} provider @param {object} [options] */
  async function serving(t, provider, options) {
    const { mcpAuthRouter } = await import("@modelcontextprotocol/sdk/server/auth/router.js");
    const { default: express } = await import("express");
    const makeApp = (/** @type {Client} */ client, /** @type {string} */ base) =>
      express().use(mcpAuthRouter({ provider: withScopeward(provider, client, options), issuerUrl: new URL(base) }));
    const own = await served({ makeApp }, new Client(service.target, { deadline: 5000 }));
    cleanup(t, () => own.close());
    return new Login({ makeApp }, own.base);
  }

  test("one that issues more than it is told issues nothing", async (t) => {
    class Generous extends MemoryProvider {
      /** @override @type {MemoryProvider["exchangeRefreshToken"]} */
      async exchangeRefreshToken(client, token) {
        return super.exchangeRefreshToken(client, token);
      }
    }
    const provider = new Generous();
    const login = await serving(t, provider, { refreshGrant: provider.refreshGrant.bind(provider) });
    const client = await login.register("openid profile");
    const tokens = await login.login(client, "openid profile");
    await refused(login.refresh(client, tokens, "openid"), 500, "server_error");
  });

  test("one that names no scope", async (t) => {
    class Silent extends MemoryProvider {
      /** @override @type {MemoryProvider["exchangeRefreshToken"]} */
      async exchangeRefreshToken(client, token, scopes) {
        const { scope: _, ...tokens } = await super.exchangeRefreshToken(client, token, scopes);
        return tokens;
      }
    }
    const provider = new Silent();
    const login = await serving(t, provider, { refreshGrant: provider.refreshGrant.bind(provider) });
    const client = await login.register("openid profile");
    assert.equal((await login.refresh(client, await login.login(client, "openid profile"), "openid"))["scope"], "openid");
  });

  test("without `refreshGrant` it alone decides, and a warning says so", async (t) => {
    const warned = once(process, "warning");
    const login = await serving(t, new MemoryProvider());
    assert.match(String((await warned)[0]), /refreshGrant/);
    const client = await login.register("openid profile");
    const tokens = await login.login(client, "openid profile");
    await service.writePolicy(WITHOUT_PROFILE);
    assert.deepEqual(scopes(await login.refresh(client, tokens)), new Set(["openid", "profile"]));
    await service.writePolicy(POLICY);
  });
});

describe("other grants of oidc-provider", () => {
  const SECRET = "a secret of this test alone, and long enough";
  /** @type {Awaited<ReturnType<typeof started>>} */
  let service;

  /** @param {object} claims */
  function assertion(claims) {
    const part = (/** @type {object} */ value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    return `${part({ alg: "none" })}.${part(claims)}.`;
  }

  /**
   * A server with machines of its operator, and two grants as one would write them.
   *
   * @param {import("node:test").TestContext} t @param {import("scopeward/oidc-provider").ProviderOptions} [options] @param {boolean} [heeds]
   */
  async function serving(t, options, heeds = true) {
    service = await started(t);
    const { default: Provider } = await import("oidc-provider");
    const { withScopeward } = await import("scopeward/oidc-provider");
    const machine = { client_secret: SECRET, redirect_uris: [], response_types: [], token_endpoint_auth_method: /** @type {const} */ ("client_secret_post") };
    const grant_types = ["client_credentials", JWT_BEARER, TOKEN_EXCHANGE];
    let used = 0;
    const makeApp = (/** @type {Client} */ client, /** @type {string} */ base) => {
      const provider = new (withScopeward(Provider, client, options))(base, {
        scopes: ["openid", "profile", "offline_access", "mcp:read", "mcp:write", "admin"],
        clients: [
          { ...machine, client_id: "machine", grant_types, scope: "openid profile admin" },
          { ...machine, client_id: "bare", grant_types },
        ],
        features: {
          clientCredentials: { enabled: true },
          resourceIndicators: {
            enabled: true,
            getResourceServerInfo: (_ctx, resource) => ({ audience: resource, scope: "openid profile offline_access mcp:read mcp:write admin root", accessTokenFormat: "opaque" }),
          },
          devInteractions: { enabled: false },
        },
        ttl: { AccessToken: 60, ClientCredentials: 60, Grant: 60, IdToken: 60, Interaction: 60, Session: 60 },
        findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
        renderError: (ctx, out) => void (ctx.body = out),
      });
      const issue = async (/** @type {any} */ ctx) => {
        used++;
        const { client, params } = ctx.oidc;
        const grant = new provider.Grant({ accountId: "user", clientId: client.clientId });
        const scope = heeds ? params.scope : "openid profile admin";
        const token = new provider.AccessToken({ accountId: "user", client, grantId: await grant.save(), gty: params.grant_type, scope });
        ctx.body = { access_token: await token.save(), token_type: "Bearer", expires_in: 60, scope };
      };
      provider.registerGrantType(JWT_BEARER, issue, ["assertion", "scope", "resource"]);
      provider.registerGrantType(TOKEN_EXCHANGE, issue, ["subject_token", "subject_token_type", "scope", "resource"]);
      return provider.callback();
    };
    const own = await served({ makeApp }, new Client(service.target, { deadline: 5000 }));
    cleanup(t, () => own.close());
    const login = new Login({ makeApp, token: "/token", resource: null }, own.base);
    const present = (/** @type {string} */ grant_type, /** @type {Record<string, string>} */ parameters = {}, client_id = "machine") =>
      login.token({ client_id }, { client_secret: SECRET, grant_type, resource: RESOURCE, ...parameters });
    return { present, used: () => used };
  }

  test("client credentials get what the client holds", async (t) => {
    const { present } = await serving(t);
    const get = async (/** @type {string | undefined} */ scope) => scopes(await present("client_credentials", scope === undefined ? {} : { scope }));
    assert.deepEqual(await get("openid profile"), new Set(["openid", "profile"]));
    assert.deepEqual(await get(" openid  profile "), new Set(["openid", "profile"]));
    // Of the baseline as well. What is privileged has to be stored and asked for.
    assert.deepEqual(await get(undefined), new Set(["openid", "profile", "offline_access"]));
    assert.deepEqual(await get("offline_access"), new Set(["offline_access"]));
    assert.deepEqual(await get("admin"), new Set(["admin"]));
    for (const scope of ["openid mcp:write", "root", "nonsense", "mcp:read", 'openid "']) {
      await refused(get(scope), 400, "invalid_scope");
    }
    await service.writePolicy(WITHOUT_PROFILE);
    assert.deepEqual(await get("openid profile"), new Set(["openid"]));
    await service.stop();
    await refused(get("openid"), 503, "temporarily_unavailable");
  });

  test("client credentials without a stored scope are of the baseline", async (t) => {
    const { present } = await serving(t);
    assert.deepEqual(scopes(await present("client_credentials", {}, "bare")), new Set(["offline_access"]));
    await refused(present("client_credentials", { scope: "openid" }, "bare"), 400, "invalid_scope");
    await refused(present("client_credentials", { resource: "https://other.example.com" }), 400, "invalid_target");
  });

  test("an assertion gets what it stands for", async (t) => {
    const { present, used } = await serving(t);
    const get = async (/** @type {object} */ claims, /** @type {Record<string, string>} */ parameters = {}) =>
      scopes(await present(JWT_BEARER, { assertion: assertion(claims), ...parameters }));
    assert.deepEqual(await get({ scope: "openid mcp:read" }), new Set(["openid", "mcp:read"]));
    assert.deepEqual(await get({ scope: "openid mcp:read" }, { scope: "openid" }), new Set(["openid"]));
    assert.deepEqual(await get({}), new Set(["openid", "profile", "offline_access"]));
    assert.deepEqual(await get({ scope: ["openid"] }), new Set(["openid"]));
    const before = used();
    for (const [scope, asked] of /** @type {[any, string?][]} */ ([["openid", "openid profile"], ["root"], [""], [{}], ["openid", "admin"]])) {
      await refused(get({ scope }, asked === undefined ? {} : { scope: asked }), 400, "invalid_scope");
    }
    await refused(get({ scope: "openid", resource: "https://other.example.com" }, { resource: "" }), 400, "invalid_target");
    await service.stop();
    await refused(get({ scope: "openid" }), 503, "temporarily_unavailable");
    assert.equal(used(), before);
  });

  test("a token exchange gets what the subject token has", async (t) => {
    const { present } = await serving(t);
    const { access_token: subject_token } = await present(JWT_BEARER, { assertion: assertion({ scope: "openid mcp:read" }) });
    const exchange = (/** @type {Record<string, string>} */ parameters = {}) => present(TOKEN_EXCHANGE, { subject_token, ...parameters });
    assert.deepEqual(scopes(await exchange()), new Set(["openid", "mcp:read"]));
    assert.deepEqual(scopes(await exchange({ scope: "mcp:read" })), new Set(["mcp:read"]));
    await refused(exchange({ scope: "openid profile" }), 400, "invalid_scope");
    await service.writePolicy(POLICY.replace('"mcp:read", "mcp:write"', '"mcp:write"').replace('[openid, "mcp:read"]', "[openid]"));
    assert.deepEqual(scopes(await exchange()), new Set(["openid"]));
    // Nobody said what that stands for.
    await refused(exchange({ subject_token: "of another server" }), 500, "server_error");
  });

  test("`grantedScope` says what a token of another server stands for", async (t) => {
    const { present } = await serving(t, { grantedScope: async (ctx) => (ctx.oidc.params?.["subject_token"] === "foreign" ? "openid" : undefined) });
    assert.deepEqual(scopes(await present(TOKEN_EXCHANGE, { subject_token: "foreign" })), new Set(["openid"]));
    await refused(present(TOKEN_EXCHANGE, { subject_token: "foreign", scope: "profile" }), 400, "invalid_scope");
  });

  test("a handler that issues more issues nothing", async (t) => {
    const { present } = await serving(t, {}, false);
    await refused(present(JWT_BEARER, { assertion: assertion({ scope: "openid" }) }), 500, "server_error");
  });
});
