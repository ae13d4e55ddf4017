// What only oidc-provider has: pushed requests, devices, metadata documents, clients of its configuration.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Client } from "scopeward";

import { Browser, Login, OAuthFailure, REDIRECT_URI, RESOURCE, served } from "../examples/demo.mjs";
import { EXAMPLE } from "../examples/oidc-provider.mjs";
import { cleanup, shared, started } from "./service.mjs";

const DOCUMENT = "https://app.example.com/client.json";
const DEVICE = "urn:ietf:params:oauth:grant-type:device_code";
const BACKCHANNEL = "urn:openid:params:grant-type:ciba";

/** @param {Promise<unknown>} attempt @param {number} status @param {string} error */
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

/** @param {Login} login @param {Record<string, any>} client @param {string} [scope] */
async function push(login, client, scope) {
  const { query, verifier } = login.request(client, scope);
  const url = login.authorize_.replace(/auth$/, "request");
  const { request_uri } = await login.call("POST", url, query.toString(), "application/x-www-form-urlencoded");
  return { query, verifier, page: `${login.authorize_}?${new URLSearchParams({ client_id: client["client_id"], request_uri })}` };
}

describe("oidc-provider alone", () => {
  const service = shared();
  /** @type {Awaited<ReturnType<typeof served>>} */
  let server;
  /** @type {Login} */
  let login;

  before(async () => {
    const document = { client_id: DOCUMENT, client_name: "App", redirect_uris: [REDIRECT_URI], token_endpoint_auth_method: "none", application_type: "native", scope: "admin" };
    const example = {
      ...EXAMPLE,
      makeApp: (/** @type {Client} */ client, /** @type {string} */ base) => 
        EXAMPLE.makeApp(client, base, {
          fetch: async () => Response.json(document),
          enableHttpPostMethods: true,
          cookies: { keys: ["a secret"], long: { sameSite: "none" } },
        }),
    };
    server = await served(example, new Client(service.target, { deadline: 5000 }));
    login = new Login(EXAMPLE, server.base);
  });
  after(() => server.close());

  test("a pushed request is decided when it is pushed and when it is used", async () => {
    const client = await login.register("openid");
    const { query, verifier, page } = await push(login, client, " openid mcp:write");
    const answer = login.answered(await new Browser().visit(page), query, verifier);
    assert.equal(scopes(await login.redeem(client, answer)), "mcp:write openid");
    const [, ...steps] = await service.eventsOf(client["client_id"]); // after the registration
    assert.equal(steps.length, 2);
    assert.equal(new Set(steps.map(({ correlationId }) => correlationId)).size, 1);
    await refused(push(login, client, "openid root"), 400, "invalid_scope");
    await refused(push(login, client, "openid profile"), 400, "invalid_scope");
  });

  test("a pushed request without an answer is refused", async (t) => {
    const own = await started(t);
    const other = await served(EXAMPLE, new Client(own.target, { deadline: 5000 }));
    cleanup(t, () => other.close());
    const impatient = new Login(EXAMPLE, other.base);
    const client = await impatient.register("openid");
    const { page } = await push(impatient, client, "openid");
    await own.stop();
    await refused(push(impatient, client, "openid"), 503, "temporarily_unavailable");
    assert.equal((await new Browser().visit(page))["error"], "temporarily_unavailable");
  });

  test("an authorize request may be posted", async () => {
    const client = await login.register("openid");
    for (const [scope, granted] of [["openid mcp:write", "mcp:write openid"], ["openid offline_access", "offline_access openid"]]) {
      const { query, verifier } = login.request(client, scope);
      const answer = login.answered(await new Browser().visit(login.authorize_, query), query, verifier);
      assert.equal(scopes(await login.redeem(client, answer)), granted);
    }
    const { query } = login.request(client, "root");
    assert.equal((await new Browser().visit(login.authorize_, query))["error"], "invalid_scope");
  });

  for (const [client_id, source] of [[DOCUMENT, "CLIENT_SOURCE_CIMD"], ["by-operator", "CLIENT_SOURCE_STATIC"]]) {
    test(`a client that did not register is asked for as unknown: ${source}`, async () => {
      const client = { client_id };
      assert.equal(scopes(await login.login(client, "openid mcp:read")), "mcp:read openid");
      assert.equal(scopes(await login.login(client, "mcp:write")), "mcp:write");
      await refused(login.authorize(client, "admin"), 302, "invalid_scope");
      const events = await service.eventsOf(client_id);
      assert(events.length > 0);
      assert.deepEqual(new Set(events.map((event) => event["client"].source)), new Set([source]));
      assert(events.every((event) => !("registeredScope" in event)));
    });
  }

  test("a device gets what the policy grants", async () => {
    const client = await login.register("openid", { grant_types: [DEVICE, "refresh_token"], response_types: [], redirect_uris: [] });
    const url = login.authorize_.replace(/auth$/, "device/auth");
    const ask = (/** @type {string} */ scope) => {
      const form = new URLSearchParams({ client_id: client["client_id"], scope, resource: RESOURCE });
      return login.call("POST", url, form.toString(), "application/x-www-form-urlencoded");
    };
    await refused(ask("openid root"), 400, "invalid_scope");
    await refused(ask("openid profile"), 400, "invalid_scope");
    const { device_code, verification_uri_complete } = await ask("openid mcp:write");
    const done = await new Browser().visit(verification_uri_complete).catch((failure) => failure.answer.page);
    assert.match(done, /success/i);
    assert.equal(scopes(await login.token(client, { grant_type: DEVICE, device_code })), "mcp:write openid");
  });

  test("a backchannel request (CIBA) gets what the policy grants", async (t) => {
    /** @type {import("oidc-provider").Configuration["features"]} */
    const features = {
      registration: { enabled: true },
      ciba: {
        enabled: true,
        processLoginHint: async (_, hint) => hint,
        validateRequestContext: async () => {},
        verifyUserCode: async () => {},
        // The user agrees at once to what the page would show.
        triggerAuthenticationDevice: async ({ oidc: { provider } }, request, account, client) => {
          const grant = new provider.Grant({ accountId: account.accountId, clientId: client.clientId });
          grant.addOIDCScope(String(request.params?.["scope"]));
          await grant.save();
          await provider.backchannelResult(request, grant);
        },
      },
    };
    const example = {
      ...EXAMPLE,
      makeApp: (/** @type {Client} */ client, /** @type {string} */ base) => EXAMPLE.makeApp(client, base, { features }),
    };
    const own = await started(t);
    const other = await served(example, new Client(own.target, { deadline: 5000 }));
    cleanup(t, () => other.close());
    const login = new Login({ ...EXAMPLE, resource: null }, other.base);
    const metadata = { grant_types: [BACKCHANNEL], response_types: [], redirect_uris: [], backchannel_token_delivery_mode: "poll" };
    const client = await login.register("openid", metadata);
    assert.equal(client["scope"], "openid offline_access");
    const ask = (/** @type {string} */ scope) => {
      const form = new URLSearchParams({ client_id: client["client_id"], scope, login_hint: "user" });
      return login.call("POST", login.authorize_.replace(/auth$/, "backchannel"), form.toString(), "application/x-www-form-urlencoded");
    };
    await refused(ask("openid root"), 400, "invalid_scope");
    await refused(ask("openid profile"), 400, "invalid_scope");
    const before = await own.lastExpansion();
    const { auth_req_id } = await ask("openid mcp:write");
    assert.equal(scopes(await login.token(client, { grant_type: BACKCHANNEL, auth_req_id })), "mcp:write openid");
    assert.equal((await own.expansions(before)).length, 1);
    await own.stop();
    await refused(ask("openid"), 503, "temporarily_unavailable");
  });

  test("a scope that the server's configuration lacks is the operator's mistake", async (t) => {
    const example = {
      ...EXAMPLE,
      makeApp: (/** @type {Client} */ client, /** @type {string} */ base) => EXAMPLE.makeApp(client, base, { scopes: ["openid"] }),
    };
    const narrow = await served(example, new Client(service.target, { deadline: 5000 }));
    cleanup(t, () => narrow.close());
    await refused(new Login(EXAMPLE, narrow.base).register("openid"), 500, "server_error");
  });

  test("what the server refuses is not asked", async () => {
    const before = await service.lastExpansion();
    await refused(login.register("openid", { redirect_uris: ["not a uri"] }), 400, "invalid_redirect_uri");
    assert.deepEqual(await service.expansions(before), []);
  });
});
