// Writes `src/proto` from `../../proto` and from `proto`, with the generator that `generator/package-lock.json` names.
//
// With `--check` nothing is installed: it compares the digest that was written then with that of what is there.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const sources = [join(here, "../../proto"), join(here, "proto")];
const target = join(here, "src/proto");
const digestFile = join(target, ".digest");

/** @param {string} folder */
function generate(folder) {
  const generator = join(here, "generator");
  execFileSync("npm", ["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], { cwd: generator, stdio: "inherit" });
  const plugin = { local: [process.execPath, join(generator, "node_modules/@bufbuild/protoc-gen-es/bin/protoc-gen-es")], out: folder };
  const template = { version: "v2", plugins: [{ ...plugin, opt: ["target=ts", "import_extension=js"] }] };
  for (const source of sources) {
    // Not of the buf of a user's own: what it caches and reads stays in here.
    const env = { ...process.env, BUF_CACHE_DIR: join(folder, ".cache") };
    execFileSync(join(generator, "node_modules/.bin/buf"), ["generate", source, "--template", JSON.stringify(template)], { cwd: folder, env, stdio: "inherit" });
  }
  rmSync(join(folder, ".cache"), { recursive: true, force: true });
}

/** Of the sources, of what was made of them, and of the versions that made it. */
function digest() {
  const hash = createHash("sha256");
  const files = [...sources, target].flatMap((folder) =>
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.(proto|ts)$/.test(entry.name))
      .map(({ parentPath, path, name }) => join(parentPath ?? path, name)),
  );
  for (const file of [...files, join(here, "generator/package-lock.json")].sort()) {
    hash.update(`${relative(here, file)}\0${readFileSync(file, "utf8")}\0`);
  }
  return `${hash.digest("hex")}\n`;
}

if (process.argv.includes("--check")) {
  if (digest() !== readFileSync(digestFile, "utf8")) {
    console.error("src/proto is not what generate.mjs made of proto/; run generate.mjs");
    process.exitCode = 1;
  }
} else {
  const folder = mkdtempSync(join(tmpdir(), "scopeward-generate-"));
  try {
    generate(folder);
    rmSync(target, { recursive: true, force: true });
    mkdirSync(target, { recursive: true });
    cpSync(folder, target, { recursive: true });
    writeFileSync(digestFile, digest());
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
