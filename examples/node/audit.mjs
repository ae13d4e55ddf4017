// Follows the audit stream, one JSON line for each event, and resumes after the last one.
//
// At least once: the cursor is written after an event was handled, so a crash repeats one and loses none.
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const proto = fileURLToPath(new URL("../../proto", import.meta.url));
const names = { includeDirs: [proto], keepCase: false, enums: String, longs: String, bytes: String };
const { scopeward } = grpc.loadPackageDefinition(loadSync("scopeward/v1/audit.proto", names));

const { values } = parseArgs({ options: { "cursor-file": { type: "string" }, "no-follow": { type: "boolean" } } });
const path = values["cursor-file"];
if (!path) throw new Error("--cursor-file is required");
const follow = !values["no-follow"];
const server = (process.env.SCOPEWARD_SERVER ?? "http://127.0.0.1:50551").replace("http://", "");
const keepalive = { "grpc.keepalive_time_ms": 30_000 }; // notices a server that is gone without a word
const audit = new scopeward.v1.AuditService(server, grpc.credentials.createInsecure(), keepalive);

// Replaces the cursor in one step: a new file, synced, renamed over the old one.
function save(log_id, sequence) {
  const file = openSync(`${path}.new`, "w");
  writeSync(file, JSON.stringify({ log_id, sequence: Number(sequence) }));
  fsyncSync(file);
  closeSync(file);
  renameSync(`${path}.new`, path);
}

// Times as text, hashes in hexadecimal digits, as in audit lines.
function readable(name, value) {
  if (/^(prevHash|hash)$/.test(name)) return Buffer.from(value, "base64").toString("hex");
  return name.endsWith("Time") ? new Date(value.seconds * 1e3 + (value.nanos ?? 0) / 1e6).toISOString() : value;
}

async function read() {
  const cursor = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
  // Earlier versions of this file called it `after_sequence`.
  const start = cursor ? { logId: cursor.log_id, afterSequence: cursor.sequence ?? cursor.after_sequence } : {};
  let first = true;
  for await (const answer of audit.streamAuditEvents({ ...start, follow })) {
    if (first) {
      first = false; // a checkpoint that says where the log ends, and no place to resume from
      continue;
    }
    const [[kind, step]] = Object.entries(answer);
    // An event, or a gap: events that could not be recorded.
    if (kind !== "checkpoint") console.log(JSON.stringify(kind === "gap" ? { gap: step } : step, readable));
    save(step.logId, (kind === "checkpoint" ? step.durableSequence : step.sequence) ?? "0");
  }
}

do {
  try {
    await read(); // when following it ends only with the server
  } catch (problem) {
    console.error(problem.message);
    // Only this mends itself; the others want a person (OUT_OF_RANGE, DATA_LOSS, ...).
    if (!follow || problem.code !== grpc.status.UNAVAILABLE) process.exit(1);
  }
  if (follow) await sleep(1000);
} while (follow);
audit.close();
