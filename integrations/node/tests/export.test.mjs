// What `scopeward export --format better-auth` prints is taken by Better Auth, and does what its comments say.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

import { oauthProvider } from "@better-auth/oauth-provider";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { jwt } from "better-auth/plugins";

import { POLICY, binary } from "../examples/demo.mjs";
import { env, temporary } from "./service.mjs";

test("Better Auth registers with the exported lists", async (t) => {
  const folder = temporary(t);
  writeFileSync(join(folder, "mcp.yaml"), POLICY);
  const text = execFileSync(binary(), ["export", folder, "--format", "better-auth"], { env, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  const file = join(folder, "scopes.mjs");
  writeFileSync(file, text);
  const { scopeOptions } = await import(pathToFileURL(file).href);
  const tables = ["user", "session", "account", "verification", "jwks", "oauthClient", "oauthRefreshToken", "oauthAccessToken"];
  tables.push("oauthConsent", "oauthClientAssertion", "oauthResource", "oauthClientResource");
  const provider = oauthProvider({
    ...scopeOptions,
    allowDynamicClientRegistration: true,
    allowUnauthenticatedClientRegistration: true,
    loginPage: "/login",
    consentPage: "/consent",
    silenceWarnings: { oauthAuthServerConfig: true, openidConfig: true },
  });
  const auth = betterAuth({
    baseURL: "http://localhost:3000",
    secret: "a secret of this test, which has to be long enough",
    database: memoryAdapter(Object.fromEntries(tables.map((name) => [name, []]))),
    rateLimit: { enabled: false },
    telemetry: { enabled: false },
    plugins: [jwt(), provider],
  });
  /** @param {string} [scope] */
  const register = async (scope) => {
    const metadata = { redirect_uris: ["http://127.0.0.1/callback"], application_type: "native", token_endpoint_auth_method: "none", ...(scope === undefined ? {} : { scope }) };
    const answer = await auth.handler(
      new Request("http://localhost:3000/api/auth/oauth2/register", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(metadata) }),
    );
    const members = /** @type {Record<string, string>} */ (await answer.json());
    return [answer.status, members["scope"]?.split(" ").sort().join(" ") ?? members["error"]];
  };
  assert(text.includes("every registered client holds all of `clientRegistrationAllowedScopes`, whatever it registered with"));
  const all = "mcp:read mcp:write offline_access openid profile";
  assert.deepEqual(await register("openid"), [201, all]);
  assert.deepEqual(await register(), [201, all]);
  assert.deepEqual(await register("openid root"), [400, "invalid_scope"]);
  assert.deepEqual(await register("openid admin"), [400, "invalid_scope"]);
});
