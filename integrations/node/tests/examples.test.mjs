// Each example runs in one command, and serves until it is told to end.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { promisify } from "node:util";

import { binary } from "../examples/demo.mjs";
import { PACKAGE } from "./pages.mjs";
import { env } from "./service.mjs";

const PRINTED = [
  "holds `openid offline_access`",
  "gets `openid offline_access`",
  "gets `openid offline_access`",
  "gets `openid mcp:write`",
  "invalid_scope: scope forbidden: root",
  "invalid_scope: scope not registered for this client: profile",
  "gets `openid mcp:read offline_access`",
];
const options = { env: { ...env, SCOPEWARD_BIN: binary() } };

for (const name of ["oidc-provider", "mcp-sdk", "better-auth"]) {
  const file = join(PACKAGE, "examples", `${name}.mjs`);

  test(`the example of ${name} runs`, async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [file], options);
    assert.deepEqual([...stdout.matchAll(/^\d\. .*-> (.*)$/gm)].map((found) => found[1]), PRINTED, stdout);
  });

  test(`the example of ${name} serves`, async () => {
    const child = spawn(process.execPath, [file, "--serve"], { ...options, stdio: ["ignore", "pipe", "ignore"] });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    for await (const line of createInterface(child.stdout)) {
      if (!line.startsWith("{")) continue;
      const { url, scopeward } = JSON.parse(line);
      assert.match(scopeward, /^127\.0\.0\.1:\d+$/);
      assert.match((await fetch(`${url}/.well-known/oauth-authorization-server`)).statusText, /^OK$/);
      break;
    }
    child.kill();
    assert.equal(await ended, 0);
  });
}
