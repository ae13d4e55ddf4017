// The audit consumer against the real service: nothing lost, whatever happens to either side.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import grpc from "@grpc/grpc-js";
import { AuditEvent, AuditGap, AuditStopped, Client, Denied, FileCursor, Unavailable } from "scopeward";

import { STREAM, readAudit } from "../dist/audit-reader.js";
import { decoder, encoder } from "../dist/wire.js";
import { RESOURCE, binary } from "../examples/demo.mjs";
import { cleanup, connected, env, eventually, started, temporary } from "./service.mjs";

/** Makes an expansion; waits until the client is connected again. @param {Client} client @param {string} name */
async function ask(client, name) {
  const question = { scope: "openid", client: { clientName: name, source: /** @type {const} */ ("dcr") }, correlationId: `login-${name}` };
  await eventually(() => client.expandRegistrationScopes(question), (error) => error instanceof Unavailable);
}

/** Until they end, or there are so many. @template T @param {AsyncIterable<T>} items */
async function all(items, most = Infinity) {
  const found = [];
  for await (const item of items) if (found.push(item) >= most) break;
  return found;
}

/** The client names of the expansions from the cursor on. @param {Client} client @param {string} path */
async function names(client, path) {
  const events = await all(client.auditEvents({ cursor: new FileCursor(path), follow: false, kinds: ["EXPANSION"] }));
  return events.map((event) => event instanceof AuditEvent && event.client?.clientName);
}

/** @param {AsyncGenerator<AuditEvent | AuditGap>} events */
async function take(events) {
  const { value } = await events.next();
  assert(value instanceof AuditEvent);
  return value.client?.clientName;
}

test("an event says what was decided", async (t) => {
  const service = await started(t);
  const client = connected(t, service.target);
  await ask(client, "one");
  const failure = await client.checkAuthorizeScopes({ scope: "root", registeredScope: "", audiences: RESOURCE }).catch((error) => error);
  assert(failure instanceof Denied);
  // Nobody waits for the record of a denial, so it may be written a little later.
  const events = await all(client.auditEvents(), 3);
  const [opened, expansion, denial] = events;
  assert(opened instanceof AuditEvent && opened.kind === "POLICY_CHANGE" && opened.policyChange?.accepted);
  assert(expansion instanceof AuditEvent && denial instanceof AuditEvent);
  assert.deepEqual([expansion.client?.clientName, expansion.client?.source], ["one", "dcr"]);
  assert.deepEqual([expansion.correlationId, expansion.requestedScope, expansion.registeredScope], ["login-one", "openid", undefined]);
  assert.deepEqual(expansion.added, [{ scope: "offline_access", origin: "BASELINE", rule: "" }]);
  assert.deepEqual([denial.kind, denial.reason, denial.registeredScope], ["DENIAL", "FORBIDDEN", ""]);
  assert.equal(denial.decisionId, failure.decisionId);
  assert.deepEqual(denial.prevHash, expansion.hash);
  assert(expansion.eventTime instanceof Date);
  assert.deepEqual(JSON.parse(JSON.stringify(events)), await service.audit());
});

test("it resumes after the last event that was handled", async (t) => {
  const service = await started(t);
  const [client, path] = [connected(t, service.target), join(temporary(t), "cursor")];
  await ask(client, "one");
  assert.deepEqual(await names(client, path), ["one"]);
  assert.deepEqual(await names(client, path), []);
  await ask(client, "two");
  assert.deepEqual(await names(client, path), ["two"]);
  const line = ["audit", "tail", "--server", service.target, "--cursor-file", path];
  assert.equal(execFileSync(binary(), line, { encoding: "utf8", env }), "");
});

test("an event that was not handled comes again", async (t) => {
  const service = await started(t);
  const [client, path] = [connected(t, service.target), join(temporary(t), "cursor")];
  await ask(client, "one");
  await assert.rejects(async () => {
    for await (const _ of client.auditEvents({ cursor: new FileCursor(path), follow: false, kinds: ["EXPANSION"] })) {
      throw new Error("the consumer crashed");
    }
  }, /crashed/);
  assert.deepEqual(await names(client, path), ["one"]);
});

test("following survives a restart of the server, and ends with its signal", async (t) => {
  const service = await started(t);
  const [client, stop] = [connected(t, service.target), new AbortController()];
  const cursor = new FileCursor(join(temporary(t), "cursor"));
  const events = client.auditEvents({ cursor, kinds: ["EXPANSION"], signal: stop.signal });
  await ask(client, "one");
  assert.equal(await take(events), "one");
  const next = take(events);
  await service.stop();
  await service.start();
  await ask(client, "two");
  assert.equal(await next, "two");
  const last = events.next();
  stop.abort();
  assert.deepEqual(await last, { done: true, value: undefined });
});

test("latest and a time leave out what was before", async (t) => {
  const service = await started(t);
  const client = connected(t, service.target);
  await ask(client, "one");
  const count = async (/** @type {Parameters<Client["auditEvents"]>[0]} */ options) => (await all(client.auditEvents({ follow: false, ...options }))).length;
  assert.equal(await count({ start: "latest" }), 0);
  assert.equal(await count({ start: new Date(Date.now() + 3_600_000) }), 0);
  assert.equal(await count({ start: new Date(Date.now() - 3_600_000) }), 2);
  assert.equal(await count({ audiences: "https://other.example.com" }), 0);
  await assert.rejects(count({ kinds: [/** @type {any} */ ("OTHER")] }), RangeError);
});

test("a gap is handed out", async (t) => {
  const service = await started(t, { args: ["--audit-denials-per-second", "1"] });
  const client = connected(t, service.target);
  // One by one they would be a burst only on a fast machine: ten are recorded, and one more each second.
  const answers = await client.batchCheckAuthorizeScopes(Array.from({ length: 100 }, () => ({ scope: "root", registeredScope: "" })));
  assert(answers.every((answer) => answer instanceof Denied));
  // Nobody waits for the records of denials.
  const gap = await eventually(async () => {
    for await (const event of client.auditEvents({ follow: false })) if (event instanceof AuditGap) return event;
    throw new Error("no gap");
  });
  assert.equal(gap.reason, "DENIAL_RATE");
  assert(gap.count > 0 && gap.count === gap.reasonCounts["REASON_FORBIDDEN"]);
  assert.equal(JSON.parse(JSON.stringify(gap)).gap.reason, "DENIAL_RATE");
});

test("a cursor outside what is kept stops", async (t) => {
  const service = await started(t);
  const [client, path] = [connected(t, service.target), join(temporary(t), "cursor")];
  const [first] = await all(client.auditEvents(), 1);
  assert(first !== undefined);
  for (const [position, code, reason] of /** @type {const} */ ([
    [{ logId: first.logId, sequence: 4_000 }, "OUT_OF_RANGE", "SEQUENCE_OUT_OF_RANGE"],
    [{ logId: "0192e4a0-0000-7000-8000-000000000000", sequence: 1 }, "INVALID_ARGUMENT", "LOG_ID_FOREIGN"],
  ])) {
    await new FileCursor(path).save(position);
    await assert.rejects(all(client.auditEvents({ cursor: new FileCursor(path) })), (error) => {
      assert(error instanceof AuditStopped, String(error));
      assert.deepEqual([error.code, error.reason], [code, reason]);
      return true;
    });
    assert.deepEqual(JSON.parse(readFileSync(path, "utf8")), { log_id: position.logId, sequence: position.sequence });
  }
  for (const text of ["{", "{}", '{"log_id": "a", "sequence": "1"}', "null"]) {
    writeFileSync(path, text);
    await assert.rejects(all(client.auditEvents({ cursor: new FileCursor(path) })), /no cursor/);
  }
});

test("without following an outage is said", async (t) => {
  const service = await started(t);
  const client = connected(t, service.target);
  await service.stop();
  await assert.rejects(all(client.auditEvents({ follow: false })), Unavailable);
});

test("several addresses have several logs", (t) => {
  assert.throws(() => connected(t, ["127.0.0.1:1", "127.0.0.1:2"]).auditEvents(), /log of its own/);
});

test("a silent stream is dead", async (t) => {
  const service = await started(t);
  const client = connected(t, service.target);
  await ask(client, "one");
  // The reader of the client, with less patience.
  let streams = 0;
  const channel = new grpc.Client(service.target, grpc.credentials.createInsecure());
  cleanup(t, () => channel.close());
  const events = readAudit({ kinds: ["EXPANSION"] }, async (question) => {
    streams++;
    return channel.makeServerStreamRequest(STREAM.path, encoder(STREAM.question), decoder(STREAM.answer), question);
  }, 200);
  assert.equal(await take(events), "one");
  const next = take(events);
  await service.pause();
  await eventually(async () => assert(streams > 1));
  service.resume();
  await ask(client, "two");
  assert.equal(await next, "two");
  await events.return();
});
