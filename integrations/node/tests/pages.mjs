// Runs what a Markdown page tells its readers to run, from top to bottom, in a folder of its own.
//
// - ```` ```js file=PATH ````, ```` ```yaml file=PATH ````: written to that file
// - ```` ```console serve ````: its command is a server, and stays until the end of the page
// - ```` ```console install ````: not run; the tarball of the package is there already
// - ```` ```console ````: lines that begin with `$ ` are commands, other lines what they print; `...` stands for any text

import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { binary } from "../examples/demo.mjs";
import { env } from "./service.mjs";

export const PACKAGE = fileURLToPath(new URL("..", import.meta.url));
const DEFAULT_PORT = "50551";

/** Language, further words and text of each fenced block. @param {string} text */
export function fences(text) {
  return [...text.matchAll(/^```(\w+) ?(.*)\n([^]*?)^```$/gm)].map(([, language = "", words = "", block = ""]) => ({ language, words, block }));
}

/** @param {string} page @param {string} folder */
export async function run(page, folder) {
  mkdirSync(join(folder, ".tools"));
  symlinkSync(binary(), join(folder, ".tools/scopeward"));
  const [{ filename }] = JSON.parse(npm(PACKAGE, "pack", "--json", "--ignore-scripts", "--pack-destination", folder));
  npm(folder, "install", "--ignore-scripts", "--no-audit", "--no-fund", `./${filename}`);
  const port = await freePort(); // the address that the pages name may be in use here
  const options = { cwd: folder, env: { ...env, PATH: `${folder}/.tools:${process.env["PATH"]}`, SCOPEWARD_BIN: binary() } };
  const here = (/** @type {string} */ text) => text.replaceAll(DEFAULT_PORT, String(port));
  /** @type {import("node:child_process").ChildProcess[]} */
  const servers = [];
  try {
    for (const { language, words, block } of fences(readFileSync(page, "utf8"))) {
      if (words.startsWith("file=")) {
        const file = join(folder, words.slice("file=".length));
        mkdirSync(dirname(file), { recursive: true });
        writeFileSync(file, here(block));
      } else if (language === "console" && words === "serve") {
        const command = `exec ${block.slice(2).trim()} --listen 127.0.0.1:${port} --admin-listen 127.0.0.1:0`;
        const server = spawn(command, { ...options, shell: true, stdio: ["ignore", "pipe", "ignore"] });
        servers.push(server);
        for await (const line of createInterface(server.stdout)) {
          assert.match(line, /ready/);
          break;
        }
      } else if (language === "console" && words === "") {
        for (const [, command = "", expected = ""] of block.matchAll(/^\$ (.*)\n((?:(?!\$ ).*\n)*)/gm)) {
          const done = spawnSync(here(command), { ...options, shell: true, encoding: "utf8" });
          assert.equal(done.status, 0, `${command}\n${done.stdout}${done.stderr}`);
          const pattern = expected.trimEnd().replace(/[\\^$.*+?()[\]{}|]/g, "\\$&").replaceAll("\\.\\.\\.", "[^]*");
          assert.match(done.stdout.trimEnd(), new RegExp(`^${pattern}$`), command);
        }
      }
    }
  } finally {
    for (const server of servers) server.kill();
  }
}

/** @param {string} cwd @param {string[]} args */
function npm(cwd, ...args) {
  return execFileSync("npm", args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** @returns {Promise<number>} */
export function freePort() {
  return new Promise((resolve) => {
    const free = createServer().listen(0, "127.0.0.1", () => {
      const { port } = /** @type {import("node:net").AddressInfo} */ (free.address());
      free.close(() => resolve(port));
    });
  });
}
