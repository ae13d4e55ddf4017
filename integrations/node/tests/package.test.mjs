// The package as users get it: the README runs with its tarball in a fresh project, and their code is typed.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import * as pages from "./pages.mjs";
import { temporary } from "./service.mjs";

test("the README runs", async (t) => {
  const folder = temporary(t);
  await pages.run(join(pages.PACKAGE, "README.md"), folder);

  // The same project, with users' code.
  const installed = readdirSync(join(folder, "node_modules/scopeward"));
  assert.deepEqual(installed.sort(), ["LICENSE", "README.md", "dist", "package.json"]);
  const sources = pages.fences(readFileSync(join(pages.PACKAGE, "README.md"), "utf8")).filter(({ language }) => language === "js");
  assert(sources.length > 1);
  for (const [number, { block }] of sources.entries()) writeFileSync(join(folder, `readme${number}.mts`), block);
  const wrong = "import { Client } from 'scopeward';\n// @ts-expect-error\nvoid new Client().checkAuthorizeScopes({ scope: 1 });\n";
  writeFileSync(join(folder, "wrong.mts"), wrong);
  const tools = join(pages.PACKAGE, "node_modules");
  const strict = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--module", "nodenext", "--target", "es2022"];
  const types = ["--typeRoots", join(tools, "@types"), "--types", "node", "wrong.mts"];
  const files = sources.map((_, number) => `readme${number}.mts`);
  const check = spawnSync(process.execPath, [join(tools, "typescript/bin/tsc"), ...strict, ...types, ...files], { cwd: folder, encoding: "utf8" });
  assert.equal(check.stdout, "");
  writeFileSync(join(folder, "users.cjs"), "const { Client } = require('scopeward'); new Client().close();");
  execFileSync("node", ["users.cjs"], { cwd: folder, stdio: "pipe" });
});

test("the lock file names no registry", () => {
  assert.doesNotMatch(readFileSync(join(pages.PACKAGE, "package-lock.json"), "utf8"), /"resolved"/);
});
