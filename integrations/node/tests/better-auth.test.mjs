// What only Better Auth has: clients that a user makes, metadata documents, settings that would pass by the policy.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { createCimdClientDiscovery } from "@better-auth/cimd";
import { oauthProvider } from "@better-auth/oauth-provider";
import { createAuthMiddleware } from "better-auth/api";
import { Client } from "scopeward";
import { withScopeward } from "scopeward/better-auth";

import { EXAMPLE, USER } from "../examples/better-auth.mjs";
import { Browser, Login, OAuthFailure, POLICY, REDIRECT_URI, served } from "../examples/demo.mjs";
import { cleanup, eventually, shared, started } from "./service.mjs";

const DOCUMENTS = ["https://app.example.com/client.json", "https://app.example.com/other.json"];

/** @param {Promise<unknown>} attempt @param {number} status @param {string | undefined} error */
async function refused(attempt, status, error) {
  await assert.rejects(attempt, (failure) => {
    assert(failure instanceof OAuthFailure, String(failure));
    assert.deepEqual([failure.status, failure.error], [status, error], String(failure));
    return true;
  });
}

/** @param {Record<string, any>} answer */
function scopes(answer) {
  return answer["scope"].split(" ").sort().join(" ");
}

/** The example, which knows the documents. */
const knowing = {
  ...EXAMPLE,
  makeApp: (/** @type {Client} */ client, /** @type {string} */ base) => {
    const clientDiscovery = createCimdClientDiscovery({
      fetchClientMetadataResource: async (url) =>
        Response.json({ client_id: String(url), client_name: "App", redirect_uris: [REDIRECT_URI], token_endpoint_auth_method: "none", scope: "admin" }),
      metadataFetchPolicy: { minimumFetchInterval: 0 },
    });
    return EXAMPLE.makeApp(client, base, { extensions: [{ clientDiscovery }] });
  },
};

describe("Better Auth alone", () => {
  const service = shared();
  /** @type {Awaited<ReturnType<typeof served>>} */
  let server;
  /** @type {Login} */
  let login;

  before(async () => {
    server = await served(knowing, new Client(service.target, { deadline: 5000 }));
    login = new Login(EXAMPLE, server.base);
  });
  after(() => server.close());

  /** What a signed-in user sends. @returns {Promise<(path: string, body: object) => Promise<Record<string, any>>>} */
  async function user() {
    const json = { "content-type": "application/json", origin: server.base };
    const signedIn = await fetch(`${server.base}/sign-in/email`, { method: "POST", headers: json, body: JSON.stringify(USER) });
    assert.equal(signedIn.status, 200);
    const cookie = signedIn.headers.getSetCookie().map((line) => line.split(";")[0]).join("; ");
    return async (path, body) => {
      const answer = await fetch(server.base + path, { method: "POST", headers: { ...json, cookie }, body: JSON.stringify(body) });
      const members = /** @type {Record<string, any>} */ (await answer.json());
      if (!answer.ok) throw new OAuthFailure(answer.status, members);
      return members;
    };
  }

  const CLIENT = { redirect_uris: [REDIRECT_URI], token_endpoint_auth_method: "none", application_type: "native", client_name: "Tool" };

  test("a client that a user makes is asked for as one that registers", async () => {
    const post = await user();
    const before = await service.lastExpansion();
    const client = await post("/oauth2/create-client", { ...CLIENT, scope: "openid" });
    assert.equal(scopes(client), "offline_access openid");
    assert.equal(scopes(await post("/oauth2/create-client", CLIENT)), "mcp:read offline_access openid");
    await refused(post("/oauth2/create-client", { ...CLIENT, scope: "openid root" }), 400, "invalid_client_metadata");
    assert.equal((await service.expansions(before)).length, 2);
    await refused(login.authorize(client, "openid profile"), 302, "invalid_scope");
    assert.equal(scopes(await login.login(client, "openid mcp:write")), "mcp:write openid");
  });

  test("an update with a scope is asked for, with what is held", async () => {
    const post = await user();
    const { client_id } = await post("/oauth2/create-client", { ...CLIENT, scope: "openid profile" });
    const update = (/** @type {object} */ members) => post("/oauth2/update-client", { client_id, update: members });
    const before = await service.lastExpansion();
    assert.equal(scopes(await update({ client_name: "Renamed" })), "offline_access openid profile");
    assert.deepEqual(await service.expansions(before), []);
    assert.equal(scopes(await update({ scope: "openid" })), "offline_access openid");
    await refused(login.authorize({ client_id }, "profile"), 302, "invalid_scope");
    assert.equal(scopes(await update({ scope: "openid admin" })), "admin offline_access openid");
    assert.equal(scopes(await login.login({ client_id }, "admin")), "admin");
    await assert.rejects(update({ scope: "openid root" }), OAuthFailure);
    assert.equal(scopes(await post("/oauth2/update-client", { client_id, update: {} })), "admin offline_access openid");
  });

  test("an update without an answer changes nothing", async (t) => {
    const own = await started(t);
    const other = await served(EXAMPLE, new Client(own.target, { deadline: 5000 }));
    cleanup(t, () => other.close());
    const home = server;
    server = other;
    cleanup(t, () => void (server = home));
    const post = await user();
    const { client_id } = await post("/oauth2/create-client", { ...CLIENT, scope: "openid" });
    await own.stop();
    await refused(post("/oauth2/update-client", { client_id, update: { scope: "openid profile" } }), 503, "server_error");
    await refused(post("/oauth2/create-client", CLIENT), 503, "server_error");
    assert.equal(scopes(await post("/oauth2/update-client", { client_id, update: {} })), "offline_access openid");
  });

  test("a metadata document is asked for at its first contact, and as unknown each time", async () => {
    const [client_id, other] = DOCUMENTS;
    const client = { client_id };
    assert.equal(scopes(await login.login(client, "openid mcp:write")), "mcp:write openid");
    assert.equal(scopes(await login.login(client, "openid mcp:read")), "mcp:read openid");
    // What its document says of scopes gives it nothing.
    await refused(login.authorize(client, "admin"), 302, "invalid_scope");
    // Nobody has seen its redirect URI, so nothing is sent there.
    await refused(login.authorize({ client_id: other }, "admin"), 400, "page");
    const events = [...(await service.eventsOf(String(client_id))), ...(await service.eventsOf(String(other)))];
    assert(events.length > 0);
    assert.deepEqual(new Set(events.map((event) => event["client"].source)), new Set(["CLIENT_SOURCE_CIMD"]));
    assert(events.every((event) => !("registeredScope" in event)));
  });

  test("an authorize request may be posted", async () => {
    const client = await login.register("openid");
    for (const [scope, granted] of [["openid mcp:write", "mcp:write openid"], ["openid offline_access", "offline_access openid"], [undefined, "offline_access openid"]]) {
      const { query, verifier } = login.request(client, scope);
      const answer = login.answered(await new Browser().visit(login.authorize_, query), query, verifier);
      assert.equal(scopes(await login.redeem(client, answer)), granted);
    }
    for (const scope of ["root", "openid profile"]) {
      const { query } = login.request(client, scope);
      assert.equal((await new Browser().visit(login.authorize_, query))["error"], "invalid_scope");
    }
    const { query } = login.request(client, "openid", { redirect_uri: "https://other.example.com/" });
    await refused(new Browser().visit(login.authorize_, query), 400, "page");
  });

  test("what is posted counts, and not what stands in the URL", async () => {
    const client = await login.register("openid");
    const { query, verifier } = login.request(client, "openid");
    const page = `${login.authorize_}?${login.request(client, "openid mcp:write").query}`;
    const answer = await new Browser().visit(page, query);
    assert.equal(scopes(await login.redeem(client, login.answered(answer, query, verifier))), "openid");
  });

  test("a scope that the plugin's options lack is the operator's mistake", async (t) => {
    const example = {
      ...EXAMPLE,
      makeApp: (/** @type {Client} */ client, /** @type {string} */ base) => EXAMPLE.makeApp(client, base, { scopes: ["openid"] }),
    };
    const narrow = await served(example, new Client(service.target, { deadline: 5000 }));
    cleanup(t, () => narrow.close());
    await refused(new Login(EXAMPLE, narrow.base).register("openid"), 500, "server_error");
  });

  test("a refresh keeps its grant, whatever it issues", async () => {
    const client = await login.register("openid profile");
    // With a resource the access token is a JWT, without one it is a row.
    for (const asking of [login, new Login({ ...EXAMPLE, resource: null }, server.base)]) {
      const tokens = await asking.login(client, "openid profile offline_access");
      const narrow = await asking.refresh(client, tokens, "openid");
      assert.equal(scopes(narrow), "openid");
      // It is rotated although `offline_access` is not among what was issued.
      assert.notEqual(narrow["refresh_token"], tokens["refresh_token"]);
      assert.equal(scopes(await asking.refresh(client, narrow)), "offline_access openid profile");
    }
  });

  test("the grant type may have blanks around it", async () => {
    const client = await login.register("openid profile");
    const { refresh_token } = await login.login(client, "openid offline_access");
    for (const grant_type of [" refresh_token", "refresh_token\n"]) {
      await refused(login.token(client, { grant_type, refresh_token, scope: "openid profile" }), 400, "invalid_scope");
    }
    assert.equal(scopes(await login.token(client, { grant_type: " refresh_token ", refresh_token, scope: " openid " })), "openid");
    const { code, code_verifier } = /** @type {Record<string, any>} */ (await login.authorize(client, "openid mcp:write"));
    const form = { grant_type: " authorization_code", code, code_verifier, redirect_uri: REDIRECT_URI };
    assert.equal(scopes(await login.token(client, form)), "mcp:write openid");
  });

  test("a client that does not authenticate is not asked for", async () => {
    const post = await user();
    const { token_endpoint_auth_method: _, ...secret } = CLIENT;
    const client = await post("/oauth2/create-client", { ...secret, token_endpoint_auth_method: "client_secret_post", scope: "openid" });
    const { code, code_verifier } = /** @type {Record<string, any>} */ (await login.authorize(client, "openid offline_access"));
    const { client_secret } = client;
    const form = { grant_type: "authorization_code", code, code_verifier, redirect_uri: REDIRECT_URI, client_secret };
    const { refresh_token } = await login.token(client, form);
    const refresh = { grant_type: "refresh_token", refresh_token, scope: "openid root" };
    const refusals = async () => (await service.eventsOf(client["client_id"])).filter((event) => event["grant"] === "TOKEN_GRANT_REFRESH");
    await refused(login.token(client, { ...refresh, client_secret: "wrong" }), 400, "invalid_client");
    await refused(login.token(client, { ...refresh, refresh_token: "wrong", client_secret }), 400, "invalid_grant");
    await refused(login.token(client, { ...refresh, client_secret }), 400, "invalid_scope");
    await eventually(async () => assert.equal((await refusals()).length, 1));
  });

  test("a rotated token that is presented again at once gets the same response", async (t) => {
    const own = await started(t);
    const example = {
      ...EXAMPLE,
      makeApp: (/** @type {Client} */ client, /** @type {string} */ base) => EXAMPLE.makeApp(client, base, { refreshTokenReuseInterval: 600 }),
    };
    const other = await served(example, new Client(own.target, { deadline: 5000 }));
    cleanup(t, () => other.close());
    const login = new Login(EXAMPLE, other.base);
    const client = await login.register("openid profile");
    const tokens = await login.login(client, "openid profile offline_access");
    const first = await login.refresh(client, tokens, "openid");
    assert.equal((await login.refresh(client, tokens, "openid"))["access_token"], first["access_token"]);
    await refused(login.refresh(client, tokens, "profile"), 400, "invalid_grant");
    const second = await login.refresh(client, first);
    assert.equal(scopes(second), "offline_access openid profile");
    // Where the policy took something away, the plugin does not recognize the retry. The new token stays good.
    await own.writePolicy(POLICY.replace("profile, ", ""));
    const third = await login.refresh(client, second);
    assert.equal(scopes(third), "offline_access openid");
    await refused(login.refresh(client, second), 400, "invalid_grant");
    assert.equal(scopes(await login.refresh(client, third)), "offline_access openid");
  });

  test("a refresh that nobody decided is not sent", async (t) => {
    let isElsewhere = true;
    // As by a plugin that has users elsewhere.
    const elsewhere = {
      id: "elsewhere",
      init: (/** @type {any} */ { adapter }) => {
        const findOne = async (/** @type {any} */ query) => (isElsewhere && query.model === "user" ? (await adapter.findMany(query))[0] ?? null : adapter.findOne(query));
        return { context: { adapter: { ...adapter, findOne } } };
      },
    };
    const example = {
      ...EXAMPLE,
      makeApp: (/** @type {Client} */ client, /** @type {string} */ base) => EXAMPLE.makeApp(client, base, { refreshTokenReuseInterval: 600 }, [elsewhere]),
    };
    const other = await served(example, new Client(service.target, { deadline: 5000 }));
    cleanup(t, () => other.close());
    // With a resource the access token is a JWT, without one it is a row.
    for (const login of [new Login(EXAMPLE, other.base), new Login({ ...EXAMPLE, resource: null }, other.base)]) {
      isElsewhere = true;
      const client = await login.register("openid");
      const tokens = await login.login(client, "openid offline_access");
      await refused(login.refresh(client, tokens), 500, "server_error");
      // Nor is it stored for the next try.
      await refused(login.refresh(client, tokens), 500, "server_error");
      isElsewhere = false;
      assert.equal(scopes(await login.refresh(client, tokens)), "offline_access openid");
    }
  });

  test("a refresh of a scope that a hook brought back is not sent", async (t) => {
    const own = await started(t);
    // As by a hook of the operator that returns a copy of the body.
    const handler = createAuthMiddleware(async () => ({ context: { body: { scope: "openid profile" } } }));
    const matcher = (/** @type {any} */ { path, body }) => path === "/oauth2/token" && body.grant_type === "refresh_token";
    const copying = { id: "copying", hooks: { before: [{ matcher, handler }] } };
    const example = {
      ...EXAMPLE,
      makeApp: (/** @type {Client} */ client, /** @type {string} */ base) => EXAMPLE.makeApp(client, base, { refreshTokenReuseInterval: 600 }, [copying]),
    };
    const other = await served(example, new Client(own.target, { deadline: 5000 }));
    cleanup(t, () => other.close());
    const login = new Login(EXAMPLE, other.base);
    const client = await login.register("openid profile");
    const tokens = await login.login(client, "openid profile offline_access");
    await own.writePolicy(POLICY.replace("profile, ", ""));
    for (let count = 0; count < 2; count++) await refused(login.refresh(client, tokens, "openid profile"), 500, "server_error");
    await own.writePolicy(POLICY);
    assert.equal(scopes(await login.refresh(client, tokens, "openid profile")), "openid profile");
  });

  test("settings that pass by the policy are refused at start", (t) => {
    const client = new Client(service.target);
    cleanup(t, () => client.close());
    const pages = { loginPage: "/login", consentPage: "/consent" };
    for (const [name, options] of Object.entries({
      cachedTrustedClients: { cachedTrustedClients: new Set(["trusted"]) },
      requestUriResolver: { requestUriResolver: async () => null },
    })) {
      assert.throws(() => withScopeward(oauthProvider({ ...pages, ...options }), client), { name: "RangeError", message: new RegExp(name) });
    }
    withScopeward(oauthProvider({ ...pages, cachedTrustedClients: new Set() }), client);
  });
});
