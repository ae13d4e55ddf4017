// The client against the real service: answers, denials, and what a login gets where there is no answer.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import grpc from "@grpc/grpc-js";
import { Client, Denied, OAuthClient, Unavailable } from "scopeward";

import { parseTarget } from "../dist/connection.js";
import { POLICY, RESOURCE } from "../examples/demo.mjs";
import { Authority } from "./certificates.mjs";
import { oldServer } from "./old-server.mjs";
import { cleanup, connected, eventually, shared, started, temporary } from "./service.mjs";
import { sickServer } from "./sick-server.mjs";

const BASELINE = "openid offline_access";

/** @param {unknown} error @param {Partial<Unavailable> | Partial<Denied>} members */
function has(error, members) {
  assert(error instanceof Denied || error instanceof Unavailable, String(error));
  for (const [name, value] of Object.entries(members)) assert.deepEqual(/** @type {any} */ (error)[name], value, String(error));
  return true;
}

/** @param {Promise<unknown>} answer @param {Partial<Denied>} members */
async function denied(answer, members) {
  await assert.rejects(answer, (error) => error instanceof Denied && has(error, members));
}

/** @param {Promise<unknown>} answer @param {Partial<Unavailable>} members */
async function unavailable(answer, members) {
  await assert.rejects(answer, (error) => error instanceof Unavailable && has(error, members));
}

describe("one server for all that only ask", () => {
  const service = shared();
  /** @type {Client} */
  let client;
  before(() => {
    client = new Client(service.target, { deadline: 10_000 });
  });
  after(() => client.close());

  test("a narrow registration gets the baseline", async () => {
    const answer = await client.expandRegistrationScopes({ scope: "openid", client: { clientName: "Tool" } });
    assert.equal(answer.scope, BASELINE);
    assert.deepEqual(answer.added, [{ scope: "offline_access", origin: "BASELINE", rule: "" }]);
    assert.equal(answer.policy.generation, 1);
    assert.match(answer.policy.digest, /^sha256:[0-9a-f]{64}$/);
  });

  for (const scope of [undefined, null, "", "   "]) {
    test(`an omitted scope gets the defaults: ${JSON.stringify(scope)}`, async () => {
      assert.equal((await client.expandRegistrationScopes({ scope })).scope, "openid mcp:read offline_access");
    });
  }

  test("an update without scope keeps what is held", async () => {
    const answer = await client.expandRegistrationScopes({ previousScope: "profile offline_access" });
    assert.equal(answer.scope, "profile offline_access");
  });

  test("a denial at registration is ready to be sent", async () => {
    await assert.rejects(client.expandRegistrationScopes({ scope: "openid nonsense root" }), (error) => {
      assert(error instanceof Denied);
      has(error, { error: "invalid_client_metadata", httpStatus: 400 });
      assert.deepEqual(error.oauthError(), { error: "invalid_client_metadata", error_description: error.errorDescription });
      assert.deepEqual(error.refused.map(({ scope, reason }) => [scope, reason]), [["nonsense", "UNSUPPORTED"], ["root", "FORBIDDEN"]]);
      return true;
    });
  });

  test("authorize tells step-up, and what is not to be stored", async () => {
    const question = { scope: " openid mcp:write", registeredScope: "openid", audiences: RESOURCE, correlationId: "login-1" };
    const answer = await client.checkAuthorizeScopes(question);
    assert.equal(answer.scope, "openid mcp:write");
    assert.deepEqual(answer.added, [{ scope: "mcp:write", origin: "STEP_UP", rule: "" }]);
    assert.equal(answer.effectiveRegisteredScope, "openid mcp:write");
    assert.deepEqual(answer.audienceGrants, [{ audience: RESOURCE, scope: "openid mcp:write" }]);
  });

  test("unset is not empty", async () => {
    assert.equal((await client.checkAuthorizeScopes({ scope: "mcp:read" })).scope, "mcp:read");
    await denied(client.checkAuthorizeScopes({ scope: "mcp:read", registeredScope: "" }), { error: "invalid_scope", reason: "UNREGISTERED" });
  });

  test("an unknown audience is an invalid target", async () => {
    const answer = client.checkAuthorizeScopes({ scope: "openid", audiences: ["https://other.example.com"] });
    await denied(answer, { error: "invalid_target", reason: "AUDIENCE_UNKNOWN" });
  });

  test("a batch has answers, denials and errors in order", async () => {
    const [granted, refused, failed] = await client.batchCheckAuthorizeScopes([
      { scope: "openid", registeredScope: "openid" },
      { scope: "root", registeredScope: "root" },
      { scope: "openid", correlationId: "x".repeat(129) },
    ]);
    assert(granted !== undefined && !(granted instanceof Error) && granted.scope === "openid");
    has(refused, { reason: "FORBIDDEN" });
    has(failed, { code: "INVALID_ARGUMENT", error: "server_error" });
  });

  test("a refresh gets what was granted, and no more", async () => {
    const answer = await client.checkTokenScopes({ grant: "refresh", grantedScope: "openid profile", registeredScope: "", audiences: RESOURCE });
    assert.deepEqual([answer.scope, answer.refused], ["openid profile", []]);
    assert.deepEqual(answer.audienceGrants, [{ audience: RESOURCE, scope: "openid profile" }]);
    assert.equal((await client.checkTokenScopes({ grant: "refresh", scope: " profile ", grantedScope: "openid profile" })).scope, "profile");
    const dropped = await client.checkTokenScopes({ grant: "refresh", scope: "openid root", grantedScope: "openid root" });
    assert.deepEqual([dropped.scope, dropped.refused.map(({ scope, reason }) => [scope, reason])], ["openid", [["root", "FORBIDDEN"]]]);
    const wide = client.checkTokenScopes({ grant: "refresh", scope: "openid mcp:read", grantedScope: "openid", registeredScope: "mcp:read" });
    await denied(wide, { error: "invalid_scope", reason: "EXCEEDS_GRANT", httpStatus: 400 });
  });

  test("each grant of the token endpoint", async () => {
    const scopeOf = async (/** @type {import("scopeward").TokenQuestion} */ question) => (await client.checkTokenScopes(question)).scope;
    assert.equal(await scopeOf({ grant: "client_credentials", registeredScope: "openid" }), BASELINE);
    assert.equal(await scopeOf({ grant: "jwt_bearer", registeredScope: "openid", scope: "openid" }), "openid");
    assert.equal(await scopeOf({ grant: "jwt_bearer", grantedScope: "mcp:read" }), "mcp:read");
    assert.equal(await scopeOf({ grant: "token_exchange", grantedScope: "mcp:read openid", scope: "openid" }), "openid");
    for (const grant of /** @type {const} */ (["refresh", "token_exchange"])) {
      const answer = client.checkTokenScopes({ grant, registeredScope: "openid" });
      await unavailable(answer, { code: "INVALID_ARGUMENT", error: "server_error", httpStatus: 500 });
    }
    await denied(client.checkTokenScopes({ grant: "refresh", grantedScope: "" }), { error: "invalid_scope" });
    await denied(client.checkTokenScopes({ grant: "refresh", grantedScope: "openid", audiences: "https://other.example.com" }), { error: "invalid_target" });
    await assert.rejects(client.checkTokenScopes({ grant: /** @type {any} */ ("password") }), TypeError);
  });

  test("a batch of token checks is in order", async () => {
    const [granted, refused, failed] = await client.batchCheckTokenScopes([
      { grant: "refresh", grantedScope: "openid" },
      { grant: "refresh", scope: "profile", grantedScope: "openid" },
      { grant: "refresh", scope: "openid" },
    ]);
    assert(granted !== undefined && "audienceGrants" in granted && granted.scope === "openid");
    assert(refused instanceof Denied && has(refused, { reason: "EXCEEDS_GRANT" }));
    assert(failed instanceof Unavailable && has(failed, { code: "INVALID_ARGUMENT", error: "server_error" }));
    assert.deepEqual(await client.batchCheckTokenScopes([]), []);
  });

  for (const changed of [{ scope: "openid profile" }, { scope: "" }, { decision: 0 }, { decision: 9 }]) {
    test(`a token answer that is not understood grants nothing: ${JSON.stringify(changed)}`, async (t) => {
      const old = connected(t, await oldServer(t, service.target, { missing: [], changed, hasTokens: true }));
      for (const asked of [{ scope: "openid", grantedScope: "openid profile" }, { grantedScope: "openid" }]) {
        await unavailable(old.checkTokenScopes({ grant: "refresh", ...asked }), { code: "UNKNOWN", error: "server_error", httpStatus: 500 });
      }
    });
  }

  test("a server without the question is named, once", async (t) => {
    const old = connected(t, await oldServer(t, service.target, []));
    /** @type {Error[]} */
    const warnings = [];
    const keep = (/** @type {Error} */ warning) => void warnings.push(warning);
    process.on("warning", keep);
    cleanup(t, () => process.off("warning", keep));
    for (let count = 0; count < 2; count++) {
      await assert.rejects(old.checkTokenScopes({ grant: "refresh", grantedScope: "openid" }), (error) => {
        assert(error instanceof Unavailable && has(error, { code: "UNIMPLEMENTED", error: "server_error", httpStatus: 500 }));
        assert.match(error.message, /Scopeward 0\.1\.0 or newer is needed/);
        return true;
      });
    }
    assert.deepEqual(warnings.map(({ message }) => /0\.1\.0 or newer/.test(message)), [true]);
  });

  test("descriptions and status", async () => {
    const descriptions = [];
    for await (const description of client.describeAudiences()) descriptions.push(description);
    assert.deepEqual(descriptions, [await client.describeAudience(RESOURCE)]);
    assert.deepEqual(descriptions[0]?.advertisedScopes, ["openid", "profile", "offline_access", "mcp:read"]);
    assert.equal("$typeName" in (descriptions[0] ?? {}), false);
    await unavailable(client.describeAudience("https://other.example.com"), { code: "NOT_FOUND", reason: "AUDIENCE_NOT_FOUND" });
    const status = await client.policyStatus();
    assert.equal(status.active?.generation, 1);
    assert.equal(status.audienceCount, 1);
    assert.equal(status.conditions.find(({ type }) => type === "PolicyAccepted")?.status, "True");
    assert(status.loadTime instanceof Date);
    const stop = new AbortController();
    for await (const state of client.watchPolicyStatus({ signal: stop.signal })) {
      assert.equal(state.audienceCount, 1);
      stop.abort();
    }
  });

  const HOSTILE = [
    'mcp"read',
    "openid\troot",
    "openid\nroot",
    "openid\0root",
    "ópenid",
    "adm\ud800in",
    "a".repeat(513),
    "x".repeat(1_000_000),
    "openid ".repeat(200_000),
    "\u{1f512}".repeat(100_000),
    Array.from({ length: 60_000 }, (_, number) => `scope${number}`).join(" "),
    Array.from({ length: 256 }, (_, number) => `scope${number}`).join(" "),
    "</script><script>alert(1)</script>",
  ];
  for (const [number, scope] of HOSTILE.entries()) {
    test(`a hostile scope is denied at all moments: ${number}`, async () => {
      await denied(client.expandRegistrationScopes({ scope }), { error: "invalid_client_metadata" });
      await denied(client.checkAuthorizeScopes({ scope, registeredScope: "openid" }), { error: "invalid_scope" });
      await denied(client.checkTokenScopes({ grant: "refresh", scope, grantedScope: "profile" }), { error: "invalid_scope" });
    });
  }

  test("too much metadata is denied, and odd metadata left out", async () => {
    const odd = { client_name: 7, redirect_uris: "https://x", grant_types: { a: 1 }, software_id: ["x"], scope: [], application_type: null };
    const nothing = { clientId: "", source: "dcr", clientName: "", softwareId: "", softwareVersion: "", redirectUris: [], grantTypes: [], applicationType: "" };
    assert.deepEqual(OAuthClient.fromMetadata(odd), nothing);
    const uris = Array.from({ length: 9_000 }, () => `https://a.example.com/${"p".repeat(90)}`);
    for (const metadata of [{ client_name: "n".repeat(70_000) }, { redirect_uris: uris }, { client_name: "\u{1f512}".repeat(30_000) }]) {
      await denied(client.expandRegistrationScopes({ client: OAuthClient.fromMetadata(metadata) }), { reason: "CLIENT_TOO_LARGE" });
    }
    const surrogate = OAuthClient.fromMetadata({ client_name: "\ud800", redirect_uris: ["http://127.0.0.1/\udfff", 7, new URL("http://a/")] });
    assert.equal((await client.expandRegistrationScopes({ scope: "openid", client: surrogate })).scope, BASELINE);
  });

  test("what is no text is the caller's mistake, and grants nothing", async () => {
    for (const scope of [["openid"], { openid: true }, 7, true]) {
      const wrong = /** @type {any} */ (scope);
      await assert.rejects(client.expandRegistrationScopes({ scope: wrong }), TypeError);
      await assert.rejects(client.checkAuthorizeScopes({ scope: "openid", registeredScope: wrong }), TypeError);
    }
    await assert.rejects(client.expandRegistrationScopes({ client: { source: /** @type {any} */ ("other") } }), TypeError);
  });

  test("an answer from before a field is still one", async (t) => {
    const old = connected(t, await oldServer(t, service.target, ["effectiveRegisteredScope", "audienceGrants"]));
    const answer = await old.checkAuthorizeScopes({ scope: "openid mcp:write", registeredScope: "openid" });
    assert.deepEqual([answer.scope, answer.effectiveRegisteredScope], ["openid mcp:write", "openid mcp:write"]);
    await denied(old.checkAuthorizeScopes({ scope: "root", registeredScope: "openid" }), {});
  });

  for (const [missing, changed] of /** @type {[string[], object][]} */ ([[["decision"], {}], [["scope"], {}], [[], { decision: 9 }]])) {
    test(`an allow that is not understood grants nothing: ${missing} ${JSON.stringify(changed)}`, async (t) => {
      const old = connected(t, await oldServer(t, service.target, missing, { ...changed }));
      await unavailable(old.checkAuthorizeScopes({ scope: "openid", registeredScope: "openid" }), { error: "server_error" });
      await unavailable(old.expandRegistrationScopes({ scope: "openid" }), { error: "server_error", httpStatus: 500 });
    });
  }

  test("a denial without its error grants nothing", async (t) => {
    const old = connected(t, await oldServer(t, service.target, [], { oauthError: undefined }));
    await unavailable(old.checkAuthorizeScopes({ scope: "root", registeredScope: "openid" }), { error: "server_error" });
  });

  test("a method that the server does not know is a server error", async (t) => {
    const old = connected(t, await oldServer(t, service.target, []));
    await unavailable(old.policyStatus(), { code: "UNIMPLEMENTED", error: "server_error", httpStatus: 500 });
  });

  test("an error has its reason and its field", async () => {
    const answer = client.checkAuthorizeScopes({ scope: "openid", correlationId: "x".repeat(129) });
    await assert.rejects(answer, (error) => {
      assert(error instanceof Unavailable && error.metadata["field"] === "correlation_id");
      return has(error, { code: "INVALID_ARGUMENT", reason: "LIMIT_EXCEEDED" });
    });
  });

  test("UNAVAILABLE is asked again, and nothing else", async (t) => {
    const sick = await sickServer(t, service.target);
    const asking = connected(t, sick.target);
    sick.fail(grpc.status.UNAVAILABLE, 2);
    assert.equal((await asking.expandRegistrationScopes({ scope: "openid" })).scope, BASELINE);
    assert.equal(sick.calls(), 3);
    for (const code of [grpc.status.RESOURCE_EXHAUSTED, grpc.status.ABORTED, grpc.status.INTERNAL]) {
      sick.fail(code, 1);
      await unavailable(asking.expandRegistrationScopes({ scope: "openid" }), { code: grpc.status[code] });
    }
    assert.equal(sick.calls(), 6);
  });

  test("calls at once share a client", async () => {
    const answers = await Promise.all(Array.from({ length: 16 }, () => client.expandRegistrationScopes({ scope: "openid" })));
    assert.deepEqual(new Set(answers.map(({ scope }) => scope)), new Set([BASELINE]));
  });

  test("a closed client answers nothing", async () => {
    const closed = new Client(service.target);
    closed.close();
    await unavailable(closed.expandRegistrationScopes({ scope: "openid" }), { code: "CANCELLED", httpStatus: 503 });
  });
});

const QUESTION = { scope: "openid", registeredScope: "openid" };

/** The answer once there is one: the channel comes back within its back-off of a second. @param {Client} client */
async function waitForAnswer(client) {
  const isTemporary = (/** @type {any} */ error) => error.error === "temporarily_unavailable";
  return (await eventually(() => client.checkAuthorizeScopes(QUESTION), isTemporary)).scope;
}

test("down and back", async (t) => {
  const service = await started(t);
  const client = connected(t, service.target);
  assert.equal((await client.checkAuthorizeScopes(QUESTION)).scope, "openid");
  await service.stop();
  await unavailable(client.checkAuthorizeScopes(QUESTION), { code: "UNAVAILABLE", error: "temporarily_unavailable" });
  await assert.rejects(client.expandRegistrationScopes({ scope: "openid" }), (error) => {
    assert(error instanceof Unavailable && !error.errorDescription.includes(service.target));
    return has(error, { error: "server_error", httpStatus: 503 });
  });
  await service.start();
  assert.equal(await waitForAnswer(client), "openid");
});

test("a stalled server ends with the deadline", async (t) => {
  const service = await started(t);
  const client = connected(t, service.target);
  await waitForAnswer(client);
  await service.pause();
  const answer = client.checkAuthorizeScopes({ ...QUESTION, deadline: 50 });
  await unavailable(answer, { code: "DEADLINE_EXCEEDED", error: "temporarily_unavailable" });
  service.resume();
  assert.equal(await waitForAnswer(client), "openid");
});

test("closing ends a call that waits", async (t) => {
  const service = await started(t);
  const client = connected(t, service.target, { deadline: 60_000 });
  await waitForAnswer(client);
  await service.pause();
  const answer = client.checkAuthorizeScopes(QUESTION);
  const states = client.watchPolicyStatus().next();
  setImmediate(() => client.close());
  await unavailable(answer, { code: "CANCELLED" });
  await unavailable(states, { code: "CANCELLED" });
});

test("a server that never answers a connection ends with the deadline", async (t) => {
  /** @type {import("node:net").Socket[]} */
  const sockets = [];
  const listener = createServer((socket) => sockets.push(socket));
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", () => resolve(undefined)));
  cleanup(t, () => {
    listener.close();
    for (const socket of sockets) socket.destroy();
  });
  const { port } = /** @type {import("node:net").AddressInfo} */ (listener.address());
  const client = connected(t, `127.0.0.1:${port}`, { deadline: 50 });
  await unavailable(client.expandRegistrationScopes({ scope: "openid" }), { error: "server_error", httpStatus: 503 });
});

test("several addresses leave out one that is down", async (t) => {
  const [first, second] = [await started(t), await started(t)];
  const client = connected(t, [first.target, second.target]);
  await eventually(async () => {
    await client.expandRegistrationScopes({ scope: "openid" }); // the second connection may come later than the first
    assert((await first.expansions()).length > 0 && (await second.expansions()).length > 0);
  });
  await first.stop();
  for (let count = 0; count < 10; count++) {
    assert.equal((await client.expandRegistrationScopes({ scope: "openid" })).scope, BASELINE);
  }
});

test("several addresses leave out one that does not answer", async (t) => {
  const [first, second] = [await started(t), await started(t)];
  const client = connected(t, [first.target, second.target], { deadline: 300 });
  await eventually(async () => {
    await client.expandRegistrationScopes({ scope: "openid" });
    assert((await first.expansions()).length > 0 && (await second.expansions()).length > 0);
  });
  await first.pause();
  // Half of the calls run into their deadline until the health check has noticed.
  let inRow = 0;
  await eventually(async () => {
    inRow = await client.expandRegistrationScopes({ scope: "openid" }).then(() => inRow + 1, () => 0);
    assert(inRow >= 6);
  });
  first.resume();
  const before = (await first.expansions()).length;
  await eventually(async () => {
    await client.expandRegistrationScopes({ scope: "openid" });
    assert((await first.expansions()).length > before);
  });
});

test("several addresses leave out one that does not serve", async (t) => {
  const [first, second] = [await started(t), await started(t)];
  const sick = await sickServer(t, first.target);
  const client = connected(t, [sick.target, second.target]);
  await eventually(async () => {
    await client.expandRegistrationScopes({ scope: "openid" });
    assert(sick.calls() > 0 && (await second.expansions()).length > 0);
  });
  sick.becomeSick();
  await eventually(async () => {
    const before = sick.calls();
    for (let count = 0; count < 6; count++) await client.expandRegistrationScopes({ scope: "openid" });
    assert.equal(sick.calls(), before);
  });
});

test("a unix socket", async (t) => {
  const folder = temporary(t);
  const service = await started(t, { folder, listen: `unix:${folder}/s` });
  assert(service.target.startsWith("unix:"));
  for (const target of [`unix:${folder}/s`, `unix://${folder}/s`]) {
    assert.equal((await connected(t, target).expandRegistrationScopes({ scope: "openid" })).scope, BASELINE);
  }
});

/** @param {import("node:test").TestContext} t @param {string} folder @param {Authority} authority @param {string[]} args */
function withTls(t, folder, authority, ...args) {
  const { certificate, key } = authority.issue("server", "127.0.0.1", "scopeward.internal");
  return started(t, { folder, args: ["--tls-cert-file", certificate, "--tls-private-key-file", key, ...args] });
}

test("TLS, and a wrong certificate", async (t) => {
  const folder = temporary(t);
  const [authority, other] = [new Authority(folder, "authority"), new Authority(folder, "other")];
  const { target } = await withTls(t, folder, authority);
  for (const options of [{}, { serverName: "scopeward.internal" }]) {
    const client = connected(t, `https://${target}`, { tlsCaFile: authority.file, ...options });
    assert.equal((await client.expandRegistrationScopes({ scope: "openid" })).scope, BASELINE);
  }
  for (const options of [{ tlsCaFile: other.file }, { tlsCaFile: authority.file, serverName: "other.internal" }, {}]) {
    const client = connected(t, `https://${target}`, options);
    await unavailable(client.checkAuthorizeScopes(QUESTION), { error: "temporarily_unavailable" });
  }
  await unavailable(connected(t, target).checkAuthorizeScopes(QUESTION), { error: "temporarily_unavailable" });
  writeFileSync(join(folder, "text.pem"), "no certificate");
  for (const name of ["none.pem", "text.pem"]) {
    const client = connected(t, `https://${target}`, { tlsCaFile: join(folder, name) });
    await assert.rejects(client.checkAuthorizeScopes(QUESTION), Unavailable);
  }
});

test("a client certificate that was replaced is read again", async (t) => {
  const folder = temporary(t);
  const [authority, other] = [new Authority(folder, "authority"), new Authority(folder, "stranger")];
  const caller = other.issue("caller");
  const { target } = await withTls(t, folder, authority, "--tls-client-ca-file", authority.file);
  const files = { tlsCaFile: authority.file, tlsCertFile: caller.certificate, tlsPrivateKeyFile: caller.key };
  const client = connected(t, `https://${target}`, files);
  await assert.rejects(client.expandRegistrationScopes({ scope: "openid" }), Unavailable);
  authority.issue("caller");
  assert.equal((await client.expandRegistrationScopes({ scope: "openid" })).scope, BASELINE);
});

test("a token from a file counts at once", async (t) => {
  const folder = temporary(t);
  const [tokenFile, accessFile] = [join(folder, "token"), join(folder, "access.yaml")];
  const digest = createHash("sha256").update("good").digest("hex");
  writeFileSync(accessFile, `callers:\n  - name: tests\n    match: [{tokenSha256: ${digest}}]\n    may: [decide]\n`);
  writeFileSync(tokenFile, "bad\n");
  const service = await started(t, { folder, args: ["--access-file", accessFile] });
  const client = connected(t, service.target, { tokenFile });
  await unavailable(client.expandRegistrationScopes({ scope: "openid" }), { code: "UNAUTHENTICATED", error: "server_error" });
  writeFileSync(`${tokenFile}.new`, "good\n");
  renameSync(`${tokenFile}.new`, tokenFile);
  assert.equal((await client.expandRegistrationScopes({ scope: "openid" })).scope, BASELINE);
  await unavailable(client.policyStatus(), { code: "PERMISSION_DENIED" });
  writeFileSync(tokenFile, "good\nbad");
  await unavailable(client.checkAuthorizeScopes(QUESTION), { error: "server_error" });
  rmSync(tokenFile);
  await unavailable(client.checkAuthorizeScopes(QUESTION), { error: "server_error" });
});

test("what is no target is refused at once", () => {
  const targets = ["", "host", "http://host:1/path", "ftp://host:1", "https://u@host:1", "unix:", [], ["a:1", "b:2"], "host:99999", "::1:5", "[x]:1"];
  for (const target of [...targets, ["127.0.0.1:1", "[::1]:1"], ["https://127.0.0.1:1", "127.0.0.1:2"], "a b:1", "host\\:1"]) {
    assert.throws(() => new Client(target), RangeError, String(target));
  }
  assert.throws(() => new Client("a:1", { deadline: 0 }), RangeError);
  assert.throws(() => new Client("a:1", { tlsCaFile: "x" }), /https/);
  assert.throws(() => new Client("https://a:1", { tlsCertFile: "x" }), /together/);
  assert.throws(() => new Client(["https://127.0.0.1:1", "https://127.0.0.1:2"]), /serverName/);
});

test("targets are what the command line takes", () => {
  assert.equal(parseTarget("127.0.0.1:1").target, "ipv4:127.0.0.1:1");
  assert.equal(parseTarget("http://[::1]:1").target, "ipv6:[::1]:1");
  assert.deepEqual(parseTarget("https://host:1"), { target: "dns:///host:1", isTls: true, isLocal: false, addresses: 1 });
  assert.equal(parseTarget("dns:///host:1").target, "dns:///host:1");
  assert.equal(parseTarget("unix:/run/s").target, "unix:/run/s");
  assert.equal(parseTarget(["10.0.0.1:1", "10.0.0.2:2"]).target, "ipv4:10.0.0.1:1,10.0.0.2:2");
});

test("a token does not travel in plaintext", () => {
  for (const target of ["192.0.2.1:1", "host:1", "[::2]:1", ["127.0.0.1:1", "192.0.2.1:1"]]) {
    assert.throws(() => new Client(target, { token: "secret" }), /plaintext/);
    assert.throws(() => new Client(target, { tokenFile: "secret" }), /plaintext/);
  }
  for (const target of ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/run/s", "https://host:1"]) new Client(target, { token: "secret" }).close();
  assert.throws(() => new Client("127.0.0.1:1", { token: "a\nb" }), RangeError);
});

test("an edited policy decides the next question", async (t) => {
  const service = await started(t);
  const client = connected(t, service.target);
  const registeredScope = (await client.expandRegistrationScopes({ scope: "profile" })).scope;
  await service.writePolicy(POLICY.replace("profile, ", ""));
  await denied(client.checkAuthorizeScopes({ scope: "profile", registeredScope }), { reason: "UNSUPPORTED" });
  assert.equal((await client.checkAuthorizeScopes({ registeredScope })).scope, "offline_access");
});
