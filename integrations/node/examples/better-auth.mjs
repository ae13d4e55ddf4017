// The OAuth provider of Better Auth, with everything in memory, and pages for login and consent.

import { oauthProvider } from "@better-auth/oauth-provider";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { createAuthMiddleware } from "better-auth/api";
import { toNodeHandler } from "better-auth/node";
import { jwt } from "better-auth/plugins";
import { withScopeward } from "scopeward/better-auth";

import { RESOURCE, escape, main } from "./demo.mjs";

export const USER = { email: "user@example.com", password: "a password of this example" };

/** Older MCP clients do not say that they are native, and a web client may not redirect to loopback. */
const native = createAuthMiddleware(async ({ path, body }) => {
  const isSilent = path === "/oauth2/register" && Array.isArray(body?.redirect_uris) && body.application_type === undefined;
  if (!isSilent || !body.redirect_uris.every((/** @type {unknown} */ uri) => /^http:\/\/(localhost|127\.0\.0\.1|\[::1\])[:/]/.test(String(uri)))) return;
  return { context: { body: { ...body, application_type: "native" } } };
});

/**
 * @param {import("scopeward").Client} client @param {string} base @param {Partial<Parameters<typeof oauthProvider>[0]>} [more]
 * @param {import("better-auth").BetterAuthPlugin[]} [plugins]
 */
async function makeApp(client, base, more, plugins = []) {
  const tables = ["user", "session", "account", "verification", "jwks", "oauthClient", "oauthRefreshToken", "oauthAccessToken"];
  tables.push("oauthConsent", "oauthClientAssertion", "oauthResource", "oauthClientResource");
  const plugin = oauthProvider({
    scopes: ["openid", "profile", "offline_access", "mcp:read", "mcp:write", "admin"], // what may be granted at all
    resources: [RESOURCE],
    clientRegistrationDefaultResources: [RESOURCE],
    allowDynamicClientRegistration: true,
    allowUnauthenticatedClientRegistration: true,
    loginPage: "/login",
    consentPage: "/consent",
    silenceWarnings: { oauthAuthServerConfig: true, openidConfig: true },
    ...more,
  });
  const auth = betterAuth({
    baseURL: base,
    basePath: "/",
    secret: "a secret of this example, which has to be long",
    database: memoryAdapter(Object.fromEntries(tables.map((name) => [name, []]))),
    emailAndPassword: { enabled: true },
    rateLimit: { enabled: false }, // one client here logs in many times
    telemetry: { enabled: false },
    hooks: { before: native },
    plugins: [jwt(), withScopeward(plugin, client), ...plugins],
  });
  await auth.api.signUpEmail({ body: { name: "User", ...USER } });
  const serve = toNodeHandler(auth);

  /** Posts what a page of an app would post; sends the browser where the answer says. @param {Request} page @param {string} path @param {object} body */
  async function post(page, path, body) {
    const headers = { "content-type": "application/json", accept: "application/json", origin: base, cookie: page.headers.get("cookie") ?? "" };
    const answer = await auth.handler(new Request(`${base}${path}`, { method: "POST", headers, body: JSON.stringify(body) }));
    const url = /** @type {any} */ (await answer.clone().json())?.url;
    if (typeof url !== "string") return answer;
    return new Response(null, { status: 303, headers: [["location", url], ...answer.headers.getSetCookie().map((line) => /** @type {[string, string]} */ (["set-cookie", line]))] });
  }

  /** The two pages. @param {Request} request @param {URL} url */
  async function interact(request, url) {
    const oauth_query = url.search.slice(1);
    if (request.method !== "POST") {
      const text = `${escape(url.searchParams.get("client_id"))} asks for: ${escape(url.searchParams.get("scope"))}`;
      const form = `<!doctype html><form method="post" action="${escape(url.pathname + url.search)}"><p>${text}</p>
<button name="answer" value="approve">Approve</button></form>`;
      return new Response(form, { headers: { "content-type": "text/html" } });
    }
    if (url.pathname === "/login") return post(request, "/sign-in/email", { ...USER, oauth_query });
    return post(request, "/oauth2/consent", { accept: true, oauth_query });
  }

  /** @type {import("./demo.mjs").App} */
  return (request, response) => {
    const url = new URL(request.url ?? "/", base);
    if (url.pathname !== "/login" && url.pathname !== "/consent") return void serve(request, response);
    const page = new Request(url, { method: request.method ?? "GET", headers: { cookie: request.headers.cookie ?? "" } });
    interact(page, url).then(
      async (answer) => {
        response.writeHead(answer.status, { ...Object.fromEntries(answer.headers), "set-cookie": answer.headers.getSetCookie() });
        response.end(await answer.text());
      },
      (error) => response.writeHead(500).end(String(error)),
    );
  };
}

export const EXAMPLE = { makeApp, register: "/oauth2/register", authorize: "/oauth2/authorize", token: "/oauth2/token", resource: RESOURCE };

await main(EXAMPLE, import.meta.url);
