// What the examples share: Scopeward with a policy, a web server, and a client that logs in as MCP clients do.

import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, realpathSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { Client } from "scopeward";

export const POLICY = `\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, profile, offline_access, "mcp:read", "mcp:write", admin, root]
    baselineClientScopes: [offline_access]
    defaultClientScopes: [openid, "mcp:read"]
    privilegedScopes: [admin]
    forbiddenScopes: [root]
    authorization:
      stepUpScopes: ["mcp:write"]
`;
export const RESOURCE = "https://mcp.example.com";
export const REDIRECT_URI = "http://127.0.0.1:33418/callback";

/**
 * A server to try.
 *
 * @typedef {object} Example
 * @property {(client: Client, base: string) => Promise<App> | App} makeApp From a client of Scopeward and its own base URL.
 * @property {string} [register] Path of the registration endpoint.
 * @property {string} [authorize] Path of the authorization endpoint.
 * @property {string} [token] Path of the token endpoint.
 * @property {string | null} [resource] What its clients send as `resource`.
 *
 * @typedef {import("node:http").RequestListener} App
 */

/** An OAuth error, as the client got it. */
export class OAuthFailure extends Error {
  /** @param {number} status @param {Record<string, any>} answer @param {Headers} [headers] */
  constructor(status, answer, headers) {
    super(`${status} ${JSON.stringify(answer)}`);
    this.status = status;
    this.answer = answer;
    this.headers = headers;
    /** @type {string | undefined} */
    this.error = answer.error;
  }
}

/** An OAuth client with a browser. */
export class Login {
  /** @param {Example} example @param {string} base */
  constructor(example, base) {
    this.register_ = base + (example.register ?? "/register");
    this.authorize_ = base + (example.authorize ?? "/authorize");
    this.token_ = base + (example.token ?? "/token");
    this.resource = example.resource === undefined ? RESOURCE : example.resource;
  }

  /** @param {unknown} [scope] @param {Record<string, unknown>} [metadata] */
  register(scope, metadata) {
    const body = {
      client_name: "Example Tool",
      redirect_uris: [REDIRECT_URI],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
      application_type: "native",
      ...(scope === undefined ? {} : { scope }),
      ...metadata,
    };
    return this.call("POST", this.register_, JSON.stringify(body), "application/json");
  }

  /**
   * @param {string} method @param {string} url @param {string} [body] @param {string} [kind] @param {string} [token]
   * @returns {Promise<Record<string, any>>}
   */
  async call(method, url, body, kind = "application/json", token) {
    const headers = { "content-type": kind, ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) };
    const answer = await fetch(url, { method, headers, redirect: "manual", ...(body === undefined ? {} : { body }) });
    const text = await answer.text();
    if (!answer.ok) throw new OAuthFailure(answer.status, text.startsWith("{") ? JSON.parse(text) : { page: text }, answer.headers);
    return text === "" ? {} : JSON.parse(text);
  }

  /**
   * The parameters of an authorize request. `undefined` leaves one out, a list repeats it.
   *
   * @param {Record<string, any>} client @param {string} [scope] @param {Record<string, unknown>} [parameters]
   */
  request(client, scope, parameters) {
    const verifier = randomBytes(48).toString("base64url");
    const query = new URLSearchParams();
    const members = {
      response_type: "code",
      client_id: client["client_id"],
      redirect_uri: REDIRECT_URI,
      state: randomBytes(16).toString("base64url"),
      code_challenge: createHash("sha256").update(verifier).digest("base64url"),
      code_challenge_method: "S256",
      scope,
      resource: this.resource ?? undefined,
      ...parameters,
    };
    for (const [name, value] of Object.entries(members)) {
      for (const item of Array.isArray(value) ? value : [value]) if (item !== undefined) query.append(name, String(item));
    }
    return { query, verifier };
  }

  /**
   * Goes through the pages; returns what came back to the redirect URI, and the code verifier.
   *
   * @param {Record<string, any>} client @param {string} [scope] @param {Record<string, unknown>} [parameters]
   */
  async authorize(client, scope, parameters) {
    const { query, verifier } = this.request(client, scope, parameters);
    const answer = await new Browser().visit(`${this.authorize_}?${query}`);
    return this.answered(answer, query, verifier);
  }

  /** @param {Record<string, string>} answer @param {URLSearchParams} query @param {string} verifier */
  answered(answer, query, verifier) {
    if (answer["state"] !== (query.get("state") ?? undefined)) {
      throw new OAuthFailure(302, { ...answer, error: `state is lost: ${JSON.stringify(answer)}` });
    }
    if (answer["error"] !== undefined) throw new OAuthFailure(302, answer);
    return { ...answer, code_verifier: verifier };
  }

  /** @param {Record<string, any>} client @param {Record<string, string>} parameters */
  token(client, parameters) {
    const form = new URLSearchParams({ client_id: client["client_id"], ...parameters });
    if (this.resource !== null) form.set("resource", this.resource);
    return this.call("POST", this.token_, form.toString(), "application/x-www-form-urlencoded");
  }

  /** @param {Record<string, any>} client @param {Record<string, any>} answer */
  redeem(client, answer) {
    const { code, code_verifier } = answer;
    return this.token(client, { grant_type: "authorization_code", code, code_verifier, redirect_uri: REDIRECT_URI });
  }

  /**
   * Authorizes and redeems the code.
   *
   * @param {Record<string, any>} client @param {string} [scope] @param {Record<string, unknown>} [parameters]
   */
  async login(client, scope, parameters) {
    return this.redeem(client, await this.authorize(client, scope, parameters));
  }

  /** @param {Record<string, any>} client @param {Record<string, any>} tokens @param {string} [scope] */
  refresh(client, tokens, scope) {
    /** @type {Record<string, string>} */
    const asked = scope === undefined ? {} : { scope };
    return this.token(client, { grant_type: "refresh_token", refresh_token: tokens["refresh_token"], ...asked });
  }
}

/** Follows redirects and submits forms with what they have, until it is sent to the client's redirect URI. */
export class Browser {
  /** @type {Map<string, string>} */
  #cookies = new Map();

  /** @param {string} url @param {URLSearchParams} [form] Posted first. @returns {Promise<Record<string, string>>} */
  async visit(url, form) {
    /** @type {URLSearchParams | undefined} */
    let body = form;
    for (let step = 0; step < 12; step++) {
      const { origin } = new URL(url);
      const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join("; ");
      const headers = { accept: "text/html", origin, referer: url, ...(cookie === "" ? {} : { cookie }) };
      const answer = await fetch(url, { redirect: "manual", headers, ...(body === undefined ? {} : { method: "POST", body }) });
      for (const line of answer.headers.getSetCookie()) this.#keep(line);
      const page = await answer.text();
      // Better Auth answers a fetch with JSON, for a script that goes there.
      const location = answer.headers.get("location") ?? (page.startsWith('{"redirect":true') ? JSON.parse(page).url : null);
      if (location !== null) {
        url = new URL(location, url).href;
        body = undefined;
        if (url.startsWith(REDIRECT_URI)) return Object.fromEntries(new URL(url).searchParams);
        continue;
      }
      const found = answer.ok ? formOf(page) : undefined;
      if (found === undefined) throw new OAuthFailure(answer.status, { error: "page", page: page.slice(0, 2000) });
      url = new URL(found.action, url).href;
      body = found.fields;
    }
    throw new OAuthFailure(200, { error: "too many pages" });
  }

  /** @param {string} line */
  #keep(line) {
    const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
    if (value === "" || /;\s*max-age=0|expires=Thu, 01 Jan 1970/i.test(line)) this.#cookies.delete(name);
    else this.#cookies.set(name, value);
  }
}

/** The hidden fields of a form, and its button that says yes. @param {string} page */
function formOf(page) {
  const form = /<form\b([^>]*)>/i.exec(page);
  if (form === null) return undefined;
  const fields = new URLSearchParams();
  for (const [tag, kind] of page.matchAll(/<(input|button)\b[^>]*>/gi)) {
    const member = (/** @type {string} */ name) => unescape(new RegExp(`\\b${name}="([^"]*)"`, "i").exec(tag)?.[1] ?? "");
    const isHidden = kind?.toLowerCase() === "input" && member("type") === "hidden";
    if (member("name") !== "" && (isHidden || member("value") === "approve")) fields.append(member("name"), member("value"));
  }
  return { action: unescape(/\baction="([^"]*)"/i.exec(form[1] ?? "")?.[1] ?? ""), fields };
}

/** @param {string} text */
function unescape(text) {
  return text.replace(/&quot;/g, '"').replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
}

/** For pages: what a client sent may be anything. @param {unknown} text */
export function escape(text) {
  return String(text).replace(/&/g, "&amp;").replace(/"/g, "&quot;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** Runs the server; `base` is its URL. @param {Example} example @param {Client} client @param {number} [port] */
export async function served(example, client, port = 0) {
  /** @type {App | undefined} */
  let app;
  const server = createServer((request, response) => app?.(request, response));
  await new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve(undefined)));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no address");
  const base = `http://localhost:${address.port}`;
  app = await example.makeApp(client, base);
  return {
    base,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      client.close();
    },
  };
}

/** The path of the program: from SCOPEWARD_BIN, else of this checkout, else from the path. */
export function binary() {
  const named = process.env["SCOPEWARD_BIN"];
  if (named !== undefined) return named;
  const built = fileURLToPath(new URL("../../../target/debug/scopeward", import.meta.url));
  return existsSync(built) ? built : "scopeward";
}

/** Runs Scopeward with the policy above; `target` is its address. */
export async function scopeward() {
  const folder = await mkdtemp(join(tmpdir(), "scopeward-demo-"));
  const policies = join(folder, "policies");
  await mkdir(policies);
  await writeFile(join(policies, "mcp.yaml"), POLICY);
  const listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
  const command = ["serve", "--policies", policies, "--state-dir", join(folder, "state"), ...listen];
  const child = spawn(binary(), command, { stdio: ["ignore", "pipe", "ignore"] });
  const ended = new Promise((resolve) => child.once("close", resolve).once("error", resolve));
  for await (const line of createInterface(child.stdout)) {
    const ready = /grpc=(\S+)/.exec(line);
    if (ready?.[1] === undefined) break;
    return {
      target: ready[1],
      async close() {
        child.kill();
        await ended;
        await rm(folder, { recursive: true, force: true });
      },
    };
  }
  throw new Error("scopeward did not start");
}

/**
 * The command of an example. Alone it shows one login after another, step by step. With `--serve` it runs the server until
 * SIGTERM, and prints one line of JSON with its `url`; `--port` and `--scopeward TARGET` are optional.
 *
 * @param {Example} example @param {string} file The module of the example.
 */
export async function main(example, file) {
  if (process.argv[1] === undefined || realpathSync(process.argv[1]) !== fileURLToPath(file)) return; // it is imported
  const { values } = parseArgs({
    options: { serve: { type: "boolean" }, port: { type: "string", default: "0" }, scopeward: { type: "string" } },
  });
  const service = values.scopeward === undefined ? await scopeward() : { target: values.scopeward, close: async () => {} };
  const server = await served(example, new Client(service.target, { deadline: 5000 }), Number(values.port));
  try {
    if (values.serve === true) {
      console.log(JSON.stringify({ url: server.base, scopeward: service.target }));
      await new Promise((resolve) => process.once("SIGTERM", resolve).once("SIGINT", resolve));
    } else {
      console.log(`Scopeward on ${service.target}, the authorization server on ${server.base}`);
      await show(new Login(example, server.base));
    }
  } finally {
    await server.close();
    await service.close();
  }
  process.exit(); // the server of an example may have timers of its own
}

/** @param {Login} login */
async function show(login) {
  const client = await login.register("openid");
  console.log(`1. registers with \`openid\`                    -> holds \`${client["scope"]}\``);
  let tokens = await login.login(client, "openid offline_access");
  console.log(`2. asks for \`openid offline_access\`           -> gets \`${tokens["scope"]}\``);
  tokens = await login.refresh(client, tokens);
  console.log(`3. refreshes                                  -> gets \`${tokens["scope"]}\``);
  tokens = await login.login(client, "openid mcp:write");
  console.log(`4. steps up with the same client: \`mcp:write\` -> gets \`${tokens["scope"]}\``);
  for (const [number, scope] of /** @type {const} */ ([[5, "openid root"], [6, "openid profile"]])) {
    try {
      await login.login(client, scope);
    } catch (failure) {
      if (!(failure instanceof OAuthFailure)) throw failure;
      console.log(`${`${number}. asks for \`${scope}\``.padEnd(46)}-> ${failure.error}: ${failure.answer["error_description"]}`);
    }
  }
  tokens = await login.login(await login.register());
  console.log(`7. registers and asks without scope           -> gets \`${tokens["scope"]}\``);
}
