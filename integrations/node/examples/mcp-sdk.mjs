// The authorization server of the MCP TypeScript SDK, with a provider that keeps everything in memory.

import { randomUUID } from "node:crypto";

import { InvalidGrantError, InvalidTokenError } from "@modelcontextprotocol/sdk/server/auth/errors.js";
import { mcpAuthRouter } from "@modelcontextprotocol/sdk/server/auth/router.js";
import express from "express";
import { withScopeward } from "scopeward/mcp-sdk";

import { RESOURCE, main } from "./demo.mjs";

/** @typedef {import("@modelcontextprotocol/sdk/shared/auth.js").OAuthClientInformationFull} StoredClient */
/** @typedef {import("@modelcontextprotocol/sdk/server/auth/provider.js").OAuthServerProvider} Provider */

/** Approves every request. A real one shows a login and a consent page. @implements {Provider} */
export class MemoryProvider {
  /** @type {Map<string, StoredClient>} */
  #clients = new Map();
  /** @type {Map<string, { clientId: string, challenge: string, scopes: string[], resource: URL | undefined }>} */
  #codes = new Map();
  /** @type {Map<string, { clientId: string, scopes: string[], resource: URL | undefined, expiresAt: number }>} */
  #tokens = new Map();
  /** @type {Map<string, { clientId: string, scopes: string[], resource: URL | undefined }>} */
  #refreshTokens = new Map();

  /** @param {StoredClient[]} [known] */
  constructor(known = []) {
    for (const client of known) this.#clients.set(client.client_id, client);
  }

  get clientsStore() {
    return {
      getClient: (/** @type {string} */ id) => this.#clients.get(id),
      registerClient: (/** @type {any} */ client) => {
        this.#clients.set(client.client_id, client);
        return client;
      },
    };
  }

  /** @type {Provider["authorize"]} */
  async authorize(client, params, response) {
    const code = randomUUID();
    const { codeChallenge: challenge, scopes = [], resource } = params;
    this.#codes.set(code, { clientId: client.client_id, challenge, scopes, resource });
    const url = new URL(params.redirectUri);
    url.searchParams.set("code", code);
    if (params.state !== undefined) url.searchParams.set("state", params.state);
    response.redirect(url.href);
  }

  /** @type {Provider["challengeForAuthorizationCode"]} */
  async challengeForAuthorizationCode(client, code) {
    return this.#code(client, code).challenge;
  }

  /** @type {Provider["exchangeAuthorizationCode"]} */
  async exchangeAuthorizationCode(client, code) {
    const { scopes, resource } = this.#code(client, code);
    this.#codes.delete(code);
    return this.#issue(client, scopes, resource);
  }

  /** What a refresh token stands for. @param {StoredClient} client @param {string} token */
  refreshGrant(client, token) {
    const known = this.#refreshTokens.get(token);
    return known?.clientId === client.client_id ? known : undefined;
  }

  /** @type {Provider["exchangeRefreshToken"]} */
  async exchangeRefreshToken(client, token, scopes) {
    const known = this.refreshGrant(client, token);
    if (known === undefined || scopes?.some((scope) => !known.scopes.includes(scope))) {
      throw new InvalidGrantError("the refresh token does not give that");
    }
    this.#refreshTokens.delete(token);
    // The new refresh token has the grant of the old one (RFC 6749 section 6), whatever this access token gets.
    return this.#issue(client, scopes ?? known.scopes, known.resource, known.scopes);
  }

  /** @type {Provider["verifyAccessToken"]} */
  async verifyAccessToken(token) {
    const known = this.#tokens.get(token);
    if (known === undefined) throw new InvalidTokenError("unknown token");
    return { token, ...known };
  }

  /** @param {StoredClient} client @param {string} code */
  #code(client, code) {
    const known = this.#codes.get(code);
    if (known?.clientId !== client.client_id) throw new InvalidGrantError("unknown code");
    return known;
  }

  /** @param {StoredClient} client @param {string[]} scopes @param {URL | undefined} resource @param {string[]} [granted] */
  #issue(client, scopes, resource, granted = scopes) {
    const [access_token, refresh_token] = [randomUUID(), randomUUID()];
    const clientId = client.client_id;
    this.#tokens.set(access_token, { clientId, scopes, resource, expiresAt: Math.floor(Date.now() / 1000) + 3600 });
    this.#refreshTokens.set(refresh_token, { clientId, scopes: granted, resource });
    return { access_token, refresh_token, token_type: "Bearer", expires_in: 3600, scope: scopes.join(" ") };
  }
}

/** @param {import("scopeward").Client} client @param {string} base @param {StoredClient[]} [known] Clients that it has already. */
function makeApp(client, base, known) {
  const memory = new MemoryProvider(known);
  const provider = withScopeward(memory, client, { refreshGrant: (stored, token) => memory.refreshGrant(stored, token) });
  const unlimited = { rateLimit: /** @type {const} */ (false) }; // one client here logs in many times
  const options = { authorizationOptions: unlimited, clientRegistrationOptions: unlimited, tokenOptions: unlimited };
  return express().use(mcpAuthRouter({ provider, issuerUrl: new URL(base), ...options }));
}

export const EXAMPLE = { makeApp, resource: RESOURCE };

await main(EXAMPLE, import.meta.url);
