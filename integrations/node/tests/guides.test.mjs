// The code of the guides runs as it is written there, and passes the strict compiler.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { Login, OAuthFailure } from "../examples/demo.mjs";
import { PACKAGE, fences, freePort } from "./pages.mjs";
import { cleanup, env, eventually, started } from "./service.mjs";

const EXAMPLE = JSON.stringify(new URL("../examples/mcp-sdk.mjs", import.meta.url));
/** The guides: the registration endpoint, and what each leaves to its readers, as it runs and for the compiler. */
const GUIDES = {
  "oidc-provider": { register: "/reg", own: {} },
  "better-auth": { register: "/api/auth/oauth2/register", own: {} },
  "mcp-typescript-sdk": {
    register: "/register",
    own: {
      "provider.mjs": `export { MemoryProvider as MyProvider } from ${EXAMPLE};`,
      "provider.mts": `import type { OAuthServerProvider } from "@modelcontextprotocol/sdk/server/auth/provider.js";
import type { McpOptions } from "scopeward/mcp-sdk";
export declare const MyProvider: new () => OAuthServerProvider & { refreshGrant: NonNullable<McpOptions["refreshGrant"]> };`,
    },
  },
};

for (const [name, { register, own }] of Object.entries(GUIDES)) {
  test(`the server of the guide for ${name} asks`, async (t) => {
    const service = await started(t);
    const port = await freePort();
    // Next to the package, so that its name and those of the servers are found.
    const folder = mkdtempSync(join(PACKAGE, ".guide-"));
    cleanup(t, () => rmSync(folder, { recursive: true, force: true }));
    const page = readFileSync(join(PACKAGE, "../../docs/guides", `${name}.md`), "utf8");
    const blocks = fences(page).filter(({ words }) => words.startsWith("file="));
    assert(blocks.length > 0);
    for (const { words, block } of blocks) {
      const text = block.replaceAll("127.0.0.1:50551", service.target).replaceAll("3000", String(port));
      writeFileSync(join(folder, words.slice("file=".length)), text);
    }
    for (const [file, text] of Object.entries(own)) writeFileSync(join(folder, file), text);
    const child = spawn(process.execPath, ["server.mjs"], { cwd: folder, env, stdio: "ignore" });
    cleanup(t, () => child.kill());
    const login = new Login({ makeApp: () => () => {}, register }, `http://localhost:${port}`);
    const isNotThere = (/** @type {unknown} */ error) => !(error instanceof OAuthFailure) || error.status === 503;
    const client = await eventually(() => login.register("openid"), isNotThere);
    assert.equal(client.scope, "openid offline_access");

    const tools = join(PACKAGE, "node_modules");
    const strict = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--skipLibCheck", "--types", "node"];
    const files = blocks.map(({ words, block }) => {
      const file = join(folder, words.slice("file=".length).replace(/\.mjs$/, ".mts"));
      writeFileSync(file, block);
      return file;
    });
    const check = spawnSync(process.execPath, [join(tools, "typescript/bin/tsc"), ...strict, ...files], { cwd: folder, encoding: "utf8" });
    assert.equal(check.stdout, "");
  });
}
