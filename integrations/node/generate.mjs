// Writes `src/proto` from `../../proto` and from `proto`; with `--check` it only compares.
//
// The versions of the generator are those of package-lock.json.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const target = join(here, "src/proto");

function generate(folder) {
  const plugin = { local: [process.execPath, join(here, "node_modules/@bufbuild/protoc-gen-es/bin/protoc-gen-es")], out: folder };
  const template = { version: "v2", plugins: [{ ...plugin, opt: ["target=ts", "import_extension=js"] }] };
  for (const source of [join(here, "../../proto"), join(here, "proto")]) {
    // Not of the buf of a user's own: what it caches and reads stays in here.
    const env = { ...process.env, BUF_CACHE_DIR: join(folder, ".cache") };
    execFileSync(join(here, "node_modules/.bin/buf"), ["generate", source, "--template", JSON.stringify(template)], { cwd: folder, env, stdio: "inherit" });
  }
  rmSync(join(folder, ".cache"), { recursive: true, force: true });
}

function files(folder) {
  const names = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(names.map(({ parentPath, path, name }) => join(parentPath ?? path, name)).sort().map((path) => [path.slice(folder.length), readFileSync(path, "utf8")]));
}

const folder = mkdtempSync(join(tmpdir(), "scopeward-generate-"));
try {
  generate(folder);
  if (process.argv.includes("--check")) {
    const [wanted, present] = [files(folder), files(target)];
    const stale = [...new Set([...wanted.keys(), ...present.keys()])].filter((name) => wanted.get(name) !== present.get(name));
    if (stale.length > 0) {
      console.error(`not current: ${stale.join(", ")}; run generate.mjs`);
      process.exitCode = 1;
    }
  } else {
    rmSync(target, { recursive: true, force: true });
    mkdirSync(target, { recursive: true });
    cpSync(folder, target, { recursive: true });
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
