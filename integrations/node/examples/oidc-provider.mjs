// oidc-provider, with everything in memory and a page that asks for consent.

import Provider from "oidc-provider";
import { withScopeward } from "scopeward/oidc-provider";

import { RESOURCE, escape, main } from "./demo.mjs";

const SCOPES = ["openid", "profile", "offline_access", "mcp:read", "mcp:write", "admin"];

/** @param {import("scopeward").Client} client @param {string} base @param {import("oidc-provider").Configuration} [more] */
function makeApp(client, base, more) {
  const AskingProvider = withScopeward(Provider, client);
  const provider = new AskingProvider(base, {
    scopes: SCOPES, // what may be registered; the policy says who gets it
    cookies: { keys: ["a secret of this example"] },
    clients: [{ client_id: "by-operator", token_endpoint_auth_method: "none", redirect_uris: ["http://127.0.0.1:33418/callback"], application_type: "native" }],
    features: {
      devInteractions: { enabled: false },
      registration: { enabled: true },
      registrationManagement: { enabled: true },
      clientIdMetadataDocument: { enabled: true, ack: "draft-02" },
      deviceFlow: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource) => ({ audience: resource, scope: SCOPES.join(" "), accessTokenFormat: "opaque" }),
        useGrantedResource: () => true,
      },
    },
    pkce: { required: () => true },
    ttl: { AccessToken: 3600, AuthorizationCode: 60, DeviceCode: 600, Grant: 86_400, IdToken: 3600, Interaction: 600, RefreshToken: 86_400, Session: 3600 },
    issueRefreshToken: () => true,
    rotateRefreshToken: true,
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    renderError: (ctx, out) => {
      ctx.type = "json";
      ctx.body = out;
    },
    ...more,
  });
  const serve = provider.callback();

  /** The page for login and consent. @param {import("node:http").IncomingMessage} request @param {import("node:http").ServerResponse} response */
  async function interact(request, response) {
    const details = await provider.interactionDetails(request, response);
    const { client_id, scope, resource } = details.params;
    if (request.method !== "POST") {
      response.setHeader("content-type", "text/html");
      response.end(`<!doctype html><form method="post"><p>${escape(client_id)} asks for: ${escape(scope)}</p>
<button name="answer" value="approve">Approve</button></form>`);
      return;
    }
    const accountId = details.session?.accountId ?? "user";
    const grant = new provider.Grant({ accountId, clientId: String(client_id) });
    grant.addOIDCScope(String(scope));
    for (const name of [resource].flat()) if (typeof name === "string") grant.addResourceScope(name, String(scope));
    const consent = { grantId: await grant.save() };
    await provider.interactionFinished(request, response, { login: { accountId }, consent });
  }

  /** @type {import("./demo.mjs").App} */
  return (request, response) => {
    if (!request.url?.startsWith("/interaction/")) return void serve(request, response);
    interact(request, response).catch((/** @type {unknown} */ error) => {
      response.statusCode = 400;
      response.end(String(error));
    });
  };
}

export const EXAMPLE = { makeApp, register: "/reg", authorize: "/auth", token: "/token", resource: RESOURCE };

await main(EXAMPLE, import.meta.url);
