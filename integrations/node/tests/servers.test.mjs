// Each server, over HTTP, with what real clients send.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";

import { Client } from "scopeward";

import { Login, OAuthFailure, POLICY, REDIRECT_URI, served } from "../examples/demo.mjs";
import { Authority } from "./certificates.mjs";
import { oldServer } from "./old-server.mjs";
import { cleanup, eventually, restored, shared, started, temporary } from "./service.mjs";

/** The servers: the status of a registration without an answer, and whether they have RFC 7592. */
const SERVERS = {
  "oidc-provider": { example: (await import("../examples/oidc-provider.mjs")).EXAMPLE, unavailable: 503, hasUpdate: true },
  "mcp-sdk": { example: (await import("../examples/mcp-sdk.mjs")).EXAMPLE, unavailable: 500, hasUpdate: false },
  "better-auth": { example: (await import("../examples/better-auth.mjs")).EXAMPLE, unavailable: 503, hasUpdate: false },
};

/** @param {Record<string, any>} answer */
function scopes(answer) {
  return new Set(answer.scope.split(" "));
}

/** @param {Promise<unknown>} attempt @param {Partial<OAuthFailure>} members @returns {Promise<OAuthFailure>} */
async function refused(attempt, members) {
  const failure = await attempt.then((granted) => assert.fail(`granted: ${JSON.stringify(granted)}`), (error) => error);
  assert(failure instanceof OAuthFailure, failure);
  for (const [name, value] of Object.entries(members)) assert.equal(/** @type {any} */ (failure)[name], value, String(failure));
  const description = failure.answer.error_description ?? "";
  assert(description.length <= 512 && !description.includes("127.0.0.1"), description);
  return failure;
}

const HOSTILE = [
  'mcp"read',
  "openid\troot",
  "openid\0root",
  "ópenid",
  "a".repeat(600),
  Array.from({ length: 256 }, (_, number) => `scope${number}`).join(" "),
  Array.from({ length: 300 }, (_, number) => `scope${number}`).join(" "),
  "</script><script>alert(1)</script>",
];
const DROPPING = POLICY.replace("authorization:\n", "registration: {unsupportedScopes: drop}\n    authorization:\n      unregisteredScopes: drop\n      unsupportedScopes: drop\n");

for (const [name, { example, unavailable, hasUpdate }] of Object.entries(SERVERS)) {
  describe(name, () => {
    const service = shared();
    /** @type {Awaited<ReturnType<typeof served>>} */
    let server;
    /** @type {Login} */
    let login;
    let isTouched = false;

    before(async () => {
      // A busy machine may take a second for an answer, and most of these tests are not about that.
      server = await served(example, new Client(service.target, { deadline: 5000 }));
      login = new Login(example, server.base);
    });
    after(() => server.close());
    afterEach(async () => {
      if (!isTouched) return;
      isTouched = false;
      await restored(service, () => login.register("openid"), (error) => error.status === unavailable);
    });

    /** @param {Record<string, any>} client */
    function loginEventually(client) {
      return eventually(() => login.login(client, "openid offline_access"), (error) => error.error === "temporarily_unavailable");
    }

    test("registers narrow and asks wide", async () => {
      const client = await login.register("openid");
      assert.equal(client.scope, "openid offline_access");
      const tokens = await login.login(client, "openid offline_access");
      assert.deepEqual(scopes(tokens), new Set(["openid", "offline_access"]));
      assert.deepEqual(scopes(await login.refresh(client, tokens)), new Set(["openid", "offline_access"]));
    });

    for (const scope of [undefined, "", "   "]) {
      test(`scope is absent at both endpoints: ${JSON.stringify(scope)}`, async () => {
        const client = await login.register(scope);
        assert.deepEqual(scopes(client), new Set(["openid", "mcp:read", "offline_access"]));
        assert.deepEqual(scopes(await login.login(client, scope)), new Set(["openid", "mcp:read", "offline_access"]));
      });
    }

    test("blanks around a scope are none", async () => {
      const client = await login.register(" openid  ");
      assert.equal(client.scope, "openid offline_access");
      assert.deepEqual(scopes(await login.login(client, " offline_access")), new Set(["offline_access"]));
    });

    test("step-up with the same client does not stick", async () => {
      const before = await service.lastExpansion();
      const client = await login.register("openid");
      for (let count = 0; count < 2; count++) {
        const tokens = await login.login(client, "openid offline_access mcp:write");
        assert.deepEqual(scopes(tokens), new Set(["openid", "offline_access", "mcp:write"]));
        assert.deepEqual(scopes(await login.refresh(client, tokens)), new Set(["openid", "offline_access", "mcp:write"]));
      }
      assert.deepEqual(scopes(await login.login(client)), new Set(["openid", "offline_access"]));
      const steps = (await service.expansions(before)).filter(({ requestedScope }) => requestedScope === "openid offline_access mcp:write");
      assert(steps.length >= 2);
      assert.deepEqual(new Set(steps.map(({ registeredScope }) => registeredScope)), new Set(["openid offline_access"]));
      assert.deepEqual(new Set(steps.flatMap(({ added }) => added).map(({ origin }) => origin)), new Set(["ORIGIN_STEP_UP"]));
    });

    test("over-asks everything that is advertised", async () => {
      isTouched = true;
      const everything = "openid profile offline_access mcp:read";
      const client = await login.register("openid");
      const { answer } = await refused(login.authorize(client, everything), { error: "invalid_scope" });
      assert.match(answer.error_description, /profile/);
      await service.writePolicy(DROPPING);
      const tokens = await login.login(client, everything);
      assert.deepEqual(scopes(tokens), new Set(["openid", "offline_access"]));
      assert.deepEqual(scopes(await login.refresh(client, tokens)), new Set(["openid", "offline_access"]));
    });

    test("what is dropped at registration is dropped", async () => {
      isTouched = true;
      await service.writePolicy(DROPPING);
      const client = await login.register("openid unheard:of");
      assert.equal(client.scope, "openid offline_access");
      assert.deepEqual(scopes(await login.login(client, "openid unheard:of root")), new Set(["openid"]));
    });

    test("asks only what is forbidden", async () => {
      const { answer } = await refused(login.register("root"), { status: 400, error: "invalid_client_metadata" });
      assert.match(answer.error_description, /\broot\b/);
      await refused(login.authorize(await login.register("openid"), "root"), { error: "invalid_scope" });
    });

    test("what is privileged must be registered", async () => {
      assert.deepEqual(scopes(await login.login(await login.register("openid admin"), "openid admin")), new Set(["openid", "admin"]));
      await refused(login.authorize(await login.register("openid"), "openid admin"), { error: "invalid_scope" });
    });

    for (const [number, scope] of HOSTILE.entries()) {
      test(`a hostile scope is refused: ${number}`, async () => {
        await refused(login.register(scope), { status: 400, error: "invalid_client_metadata" });
        await refused(login.authorize(await login.register("openid"), scope), { error: "invalid_scope" });
      });
    }

    for (const scope of ["\ud800", ["openid"], { openid: true }, 7, true]) {
      test(`a scope that is no text registers nothing: ${JSON.stringify(scope)}`, async () => {
        await refused(login.register(scope), { status: 400 });
      });
    }

    test("an unknown resource is an invalid target", async () => {
      await refused(login.authorize(await login.register("openid"), "openid", { resource: "https://other.example.com" }), { error: "invalid_target" });
    });

    test("a redirect URI that is not the client's gets no answer", async () => {
      const client = await login.register("openid");
      const before = await service.lastExpansion();
      for (const scope of ["openid offline_access", "root", "mcp:write"]) {
        const failure = await refused(login.authorize(client, scope, { redirect_uri: "http://127.0.0.1:33418/callback/other" }), {});
        assert.notEqual(failure.status, 302);
        assert.notEqual(failure.error, "too many pages");
      }
      assert.deepEqual(await service.expansions(before), []);
    });

    test("an unknown client gets no answer", async () => {
      const failure = await refused(login.authorize({ client_id: "nobody" }, "root"), {});
      assert.notEqual(failure.status, 302);
    });

    test("down and back", async () => {
      isTouched = true;
      const client = await login.register("openid");
      await service.stop();
      const { headers } = await refused(login.register("openid"), { status: unavailable, error: "server_error" });
      assert.match(headers?.get("retry-after") ?? "", unavailable === 503 ? /^[1-9]\d*$/ : /^$/);
      for (const scope of ["openid offline_access", undefined, "root"]) {
        await refused(login.authorize(client, scope), { error: "temporarily_unavailable" });
      }
      await service.start();
      assert.deepEqual(scopes(await loginEventually(client)), new Set(["openid", "offline_access"]));
    });

    test("a stalled service and a deadline of 50 ms", async (t) => {
      isTouched = true;
      const hasty = await served(example, new Client(service.target, { deadline: 50 }));
      cleanup(t, () => hasty.close());
      const impatient = new Login(example, hasty.base);
      const isTransient = (/** @type {any} */ error) => error.error === "temporarily_unavailable" || error.status === unavailable;
      const client = await eventually(() => impatient.register("openid"), isTransient);
      await service.pause();
      await refused(impatient.authorize(client, "openid"), { error: "temporarily_unavailable" });
      await refused(impatient.register("openid"), { status: unavailable, error: "server_error" });
      service.resume();
      assert.deepEqual(scopes(await eventually(() => impatient.login(client, "openid"), isTransient)), new Set(["openid"]));
    });

    test("a wrong certificate", async (t) => {
      const folder = temporary(t);
      const [authority, other] = [new Authority(folder, "authority"), new Authority(folder, "other")];
      const { certificate, key } = authority.issue("server", "localhost");
      const secure = await started(t, { folder, args: ["--tls-cert-file", certificate, "--tls-private-key-file", key] });
      const target = `https://localhost:${secure.target.split(":")[1]}`;
      const own = await served(example, new Client(target, { tlsCaFile: authority.file, deadline: 5000 }));
      cleanup(t, () => own.close());
      const login = new Login(example, own.base);
      const client = await login.register("openid");
      assert.equal(client.scope, "openid offline_access");
      for (const issuer of [other, authority]) {
        await secure.stop();
        issuer.issue("server", "localhost");
        await secure.start();
        if (issuer === authority) break;
        await refused(login.register("openid"), { status: unavailable, error: "server_error" });
        await refused(login.authorize(client, "openid"), { error: "temporarily_unavailable" });
      }
      const isTransient = (/** @type {any} */ error) => error.error === "temporarily_unavailable";
      assert.deepEqual(scopes(await eventually(() => login.login(client, "openid"), isTransient)), new Set(["openid"]));
    });

    test("a service from before some fields", async (t) => {
      const missing = ["added", "policy", "decisionId", "reason", "effectiveRegisteredScope", "audienceGrants"];
      const own = await served(example, new Client(await oldServer(t, service.target, missing), { deadline: 5000 }));
      cleanup(t, () => own.close());
      const login = new Login(example, own.base);
      const client = await login.register("openid");
      assert.equal(client.scope, "openid offline_access");
      assert.deepEqual(scopes(await login.login(client, "openid mcp:write")), new Set(["openid", "mcp:write"]));
      assert.deepEqual(scopes(await login.login(client, "openid offline_access")), new Set(["openid", "offline_access"]));
      for (const scope of ["openid root", "openid profile", "mcp:read"]) await refused(login.authorize(client, scope), { error: "invalid_scope" });
    });

    for (const [missing, changed] of /** @type {[string[], object][]} */ ([[["decision"], {}], [["scope"], {}], [[], { decision: 9 }]])) {
      test(`an answer that is not understood grants nothing: ${missing} ${JSON.stringify(changed)}`, async (t) => {
        const faults = { missing: /** @type {string[]} */ ([]), changed: {} };
        const own = await served(example, new Client(await oldServer(t, service.target, faults), { deadline: 5000 }));
        cleanup(t, () => own.close());
        const login = new Login(example, own.base);
        const client = await login.register("openid");
        Object.assign(faults, { missing, changed });
        await refused(login.authorize(client, "openid"), { error: "server_error" });
        await refused(login.register("openid"), { status: 500, error: "server_error" });
      });
    }

    test("the policy is edited between registration and authorize", async () => {
      isTouched = true;
      const client = await login.register("openid profile");
      await service.writePolicy(POLICY.replace("profile, ", ""));
      await refused(login.authorize(client, "openid profile"), { error: "invalid_scope" });
      assert.deepEqual(scopes(await login.login(client)), new Set(["openid", "offline_access"]));
    });

    test("a login has one correlation id", async () => {
      const client = await login.register("openid");
      const before = await service.lastExpansion();
      await login.login(client, "openid mcp:write");
      const first = (await service.expansions(before)).map(({ correlationId }) => correlationId);
      await login.login(client, "openid mcp:write");
      const both = (await service.expansions(before)).map(({ correlationId }) => correlationId);
      // Better Auth comes back to the authorization endpoint after its pages.
      assert.equal(first.length, name === "better-auth" ? 3 : 1);
      assert.deepEqual([new Set(first).size, new Set(both).size], [1, 2]);
      assert(both.every((id) => /^[0-9a-f]{32}$/.test(id)));
    });

    test("the client is told as it registered", async () => {
      const before = await service.lastExpansion();
      const client = await login.register("openid", { software_id: "tool-1" });
      await login.login(client, "openid mcp:write");
      const [registration, ...authorize] = await service.expansions(before);
      assert(registration !== undefined && authorize.length > 0);
      for (const { client: told } of [registration, ...authorize]) {
        assert.deepEqual([told.clientName, told.source, told.redirectUris], ["Example Tool", "CLIENT_SOURCE_DCR", [REDIRECT_URI]]);
        assert.deepEqual(told.grantTypes, ["authorization_code", "refresh_token"]);
      }
      assert.deepEqual(new Set(authorize.map((event) => event.client.clientId)), new Set([client.client_id]));
    });

    test("an update without scope keeps what is held", { skip: !hasUpdate }, async () => {
      const client = await login.register("openid profile");
      const { client_id, registration_client_uri: url } = client;
      let token = client.registration_access_token;
      /** @param {object} changed */
      async function put(changed) {
        const { redirect_uris, token_endpoint_auth_method, application_type, grant_types, response_types } = client;
        const body = { client_id, redirect_uris, token_endpoint_auth_method, application_type, grant_types, response_types, ...changed };
        const updated = await login.call("PUT", url, JSON.stringify(body), "application/json", token);
        token = updated.registration_access_token ?? token;
        return updated;
      }
      assert.deepEqual(scopes(await put({})), new Set(["openid", "profile", "offline_access"]));
      assert.deepEqual(scopes(await put({ scope: "" })), new Set(["openid", "profile", "offline_access"]));
      assert.deepEqual(scopes(await put({ scope: "openid" })), new Set(["openid", "offline_access"]));
      await refused(put({ scope: "openid root" }), { status: 400, error: "invalid_client_metadata" });
      await refused(put({ scope: ["openid"] }), { status: 400 });
      assert.deepEqual(scopes(await login.call("GET", url, undefined, undefined, token)), new Set(["openid", "offline_access"]));
      assert.deepEqual(scopes(await login.login(client)), new Set(["openid", "offline_access"]));
      const before = await service.lastExpansion();
      const good = token;
      token = "wrong";
      await refused(put({ scope: "openid" }), { status: 401 });
      token = good;
      assert.deepEqual(await service.expansions(before), []);
    });
  });
}
