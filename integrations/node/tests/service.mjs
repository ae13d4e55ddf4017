// A `scopeward serve` of a test's own, on loopback.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

import { Client } from "scopeward";

import { POLICY, binary } from "../examples/demo.mjs";

/** The environment without variables that the program would warn of. */
export const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("SCOPEWARD_")));

/** What each test undoes at its end. @type {WeakMap<import("node:test").TestContext, (() => unknown)[]>} */
const undone = new WeakMap();

/**
 * Undoes something at the end of the test: the last step first, unlike `t.after`, so that a folder outlives the service in it.
 * A step that fails leaves out no other: a service that stays would keep its test file from ending.
 *
 * @param {import("node:test").TestContext} t @param {() => unknown} undo
 */
export function cleanup(t, undo) {
  const known = undone.get(t);
  if (known) return void known.push(undo);
  const steps = [undo];
  undone.set(t, steps);
  t.after(async () => {
    const failures = [];
    for (let step = steps.pop(); step !== undefined; step = steps.pop()) {
      try {
        await step();
      } catch (failure) {
        failures.push(failure);
      }
    }
    if (failures.length > 0) throw failures.length === 1 ? failures[0] : new AggregateError(failures, "several steps failed");
  });
}

/** A folder that goes with the test. @param {import("node:test").TestContext} t */
export function temporary(t) {
  const folder = mkdtempSync(join(tmpdir(), "scopeward-test-"));
  cleanup(t, () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * A service that ends with the test.
 *
 * @param {import("node:test").TestContext} t @param {{ listen?: string, args?: string[], folder?: string }} [options]
 */
export async function started(t, options = {}) {
  const service = new Service(options.folder ?? temporary(t), options);
  cleanup(t, () => service.stop());
  await service.start();
  return service;
}

/** A service for all tests of a suite or file. */
export function shared() {
  const service = new Service(mkdtempSync(join(tmpdir(), "scopeward-test-")));
  before(() => service.start());
  after(async () => {
    await service.stop();
    rmSync(service.folder, { recursive: true, force: true });
  });
  return service;
}

/**
 * Makes a service what it was before a test touched it, and waits until `attempt` works again.
 *
 * @param {Service} service @param {() => Promise<unknown>} attempt @param {(error: any) => boolean} isTransient
 */
export async function restored(service, attempt, isTransient) {
  await service.stop();
  writeFileSync(service.policyFile, POLICY);
  await service.start();
  await eventually(attempt, isTransient);
}

/** A client that is closed with the test. @param {import("node:test").TestContext} t @param {ConstructorParameters<typeof Client>} args */
export function connected(t, ...[target, options]) {
  // A busy machine may take a second for an answer, and most tests are not about that.
  const client = new Client(target, { deadline: 5000, ...options });
  cleanup(t, () => client.close());
  return client;
}

/** Tries again until it does not throw. @template T @param {() => Promise<T>} attempt @param {(error: any) => boolean} [passes] */
export async function eventually(attempt, passes = () => true) {
  for (let count = 0; ; count++) {
    try {
      return await attempt();
    } catch (error) {
      if (count === 400 || !passes(error)) throw error;
      await sleep(25);
    }
  }
}

/** Starts with the policy of the examples; stops, starts again at the same place, and takes new policies. */
export class Service {
  /** @type {import("node:child_process").ChildProcess | undefined} */
  #process;
  #listen;
  #args;

  /** @param {string} folder @param {{ listen?: string, args?: string[] }} [options] */
  constructor(folder, { listen = "127.0.0.1:0", args = [] } = {}) {
    this.folder = folder;
    this.policies = join(folder, "policies");
    mkdirSync(this.policies, { recursive: true });
    this.policyFile = join(this.policies, "mcp.yaml");
    writeFileSync(this.policyFile, POLICY);
    this.target = "";
    /** Where HTTP is spoken, if it is. */
    this.http = "";
    this.#listen = listen;
    this.#args = args;
  }

  async start() {
    const command = ["serve", "--policies", this.policies, "--state-dir", join(this.folder, "state"), "--listen", this.#listen];
    command.push("--admin-listen", "127.0.0.1:0", "--debounce", "10ms", "--removal-quiet", "20ms", ...this.#args);
    const child = spawn(binary(), command, { env, stdio: ["ignore", "pipe", openSync(join(this.folder, "log"), "a")] });
    assert(child.stdout);
    this.#process = child;
    for await (const line of createInterface(child.stdout)) {
      this.target = /grpc=(\S+)/.exec(line)?.[1] ?? "";
      this.http = /http=(\S+)/.exec(line)?.[1] ?? "";
      break;
    }
    assert(this.target, readFileSync(join(this.folder, "log"), "utf8"));
    if (!this.target.startsWith("unix:")) this.#listen = this.target; // the same port after a restart
  }

  async stop() {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGCONT");
    child.kill("SIGTERM");
    await ended;
  }

  /** Replaces the policy, and waits until it serves. @param {string} text */
  async writePolicy(text) {
    const client = new Client(this.target);
    try {
      const states = client.watchPolicyStatus();
      const before = (await states.next()).value;
      writeFileSync(`${this.policyFile}.new`, text);
      renameSync(`${this.policyFile}.new`, this.policyFile);
      for await (const state of states) {
        assert(state.lastAttempt?.accepted, JSON.stringify(state.lastAttempt));
        if (state.active?.generation !== before?.active?.generation) return;
      }
    } finally {
      client.close();
    }
  }

  /** Stops the process where it is: connections stay, nothing is answered. */
  async pause() {
    const pid = this.#process?.pid;
    this.#process?.kill("SIGSTOP");
    while (!/^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))) await sleep(1);
  }

  resume() {
    this.#process?.kill("SIGCONT");
  }

  /**
   * The audit lines so far, without denials of the last moment: nobody waits for their records. Tests count expansions, or look
   * at the events of one client.
   *
   * @returns {Promise<Record<string, any>[]>}
   */
  async audit() {
    const command = ["audit", "tail", "--output", "json", "--server", this.target];
    const { stdout } = await promisify(execFile)(binary(), command, { env, maxBuffer: 1 << 26 });
    return stdout.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
  }

  /** The expansions so far, each of which was recorded before its answer. @param {number} [after] a sequence */
  async expansions(after = 0) {
    return (await this.audit()).filter(({ kind, sequence }) => kind === "AUDIT_EVENT_KIND_EXPANSION" && Number(sequence) > after);
  }

  /** The sequence of the last one, or 0. */
  async lastExpansion() {
    return Number((await this.expansions()).at(-1)?.sequence ?? 0);
  }

  /** What was recorded of a client. @param {string} clientId */
  async eventsOf(clientId) {
    return (await this.audit()).filter(({ client }) => client?.clientId === clientId);
  }
}
