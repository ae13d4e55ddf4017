// Drives the console in headless Chromium. `CONSOLE_BINARY` is the server, `CONSOLE_POLICIES` the example policies; with
// `CONSOLE_SCREENSHOTS` pictures for the guide are written into that folder.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const { CONSOLE_BINARY: BINARY, CONSOLE_POLICIES: POLICIES, CONSOLE_SCREENSHOTS: SCREENSHOTS } = process.env;
const AXE = fs.readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const MCP = "https://mcp.example.com";
const DEADLINE = 30_000;

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** A server that keeps its addresses over restarts. */
class Server {
  static async start(fill) {
    const server = new Server();
    // On a volume with room, so that no condition is about that.
    const place = fs.existsSync("/dev/shm") ? "/dev/shm" : os.tmpdir();
    server.folder = fs.mkdtempSync(path.join(place, "console-"));
    server.policies = path.join(server.folder, "policies");
    fs.mkdirSync(server.policies);
    fill(server.policies);
    server.admin = await freePort();
    server.grpc = await freePort();
    await server.up();
    return server;
  }

  get origin() {
    return `http://localhost:${this.admin}`;
  }

  async up() {
    this.process = spawn(BINARY, ["serve", "--console", "--removal-quiet", "50ms", "--listen", `127.0.0.1:${this.grpc}`,
      "--admin-listen", `127.0.0.1:${this.admin}`], { cwd: this.folder, stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, RUST_LOG: "error" } });
    for await (const chunk of this.process.stdout) if (String(chunk).includes("ready: ")) return;
    throw new Error("the server ended before it was ready");
  }

  async down() {
    if (this.process.exitCode !== null) return;
    this.process.kill("SIGTERM");
    await once(this.process, "exit");
  }

  async remove() {
    await this.down();
    fs.rmSync(this.folder, { recursive: true });
  }

  write(name, text) {
    fs.writeFileSync(path.join(this.policies, name), text);
  }

  read(name) {
    return fs.readFileSync(path.join(this.policies, name), "utf8");
  }

  /** Asks over gRPC; a denial is an answer. */
  async ask(...args) {
    await promisify(execFile)(BINARY, [...args, "--server", `127.0.0.1:${this.grpc}`]).catch((error) => {
      if (error.code !== 3) throw error;
    });
  }
}

const examples = (folder) => fs.cpSync(POLICIES, folder, { recursive: true });
let browser;
before(async () => {
  browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
});
after(() => browser?.close());

/** Opens the page, and learns of everything that goes wrong on it. */
async function open(server, hash = "#/", options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 760 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE);
  page.wrong = [];
  page.asked = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && page.wrong.push(message.text()));
  page.on("pageerror", (error) => page.wrong.push(String(error)));
  page.on("request", (request) => {
    page.asked.push(request.url());
    if (!request.url().startsWith(`${server.origin}/console`)) page.wrong.push(`asks ${request.url()}`);
  });
  await page.addInitScript(() => addEventListener("securitypolicyviolation", (event) => console.error(`violates ${event.violatedDirective}`)));
  await page.goto(`${server.origin}/console${hash}`);
  await page.getByText("Serving", { exact: true }).first().waitFor();
  return page;
}

async function close(page) {
  assert.deepEqual(page.wrong, []);
  await page.context().close();
}

/** Waits until something of the page is as wanted. */
const until = (page, look, value) => page.waitForFunction(look, value, { timeout: DEADLINE });
const textOf = (page, selector) => page.locator(selector).first().innerText();

async function with_server(fill, use) {
  const server = await Server.start(fill);
  try {
    await use(server);
  } finally {
    await server.remove();
  }
}

async function shoot(page, name, ...schemes) {
  if (!SCREENSHOTS) return;
  fs.mkdirSync(SCREENSHOTS, { recursive: true });
  await page.setViewportSize({ width: 1040, height: 680 });
  for (const colorScheme of schemes) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: path.join(SCREENSHOTS, `console-${name}-${colorScheme}.png`), animations: "disabled" });
  }
  await page.setViewportSize({ width: 1180, height: 760 });
}

const seriousOf = async (page) => {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
};

/** Both schemes, wide and narrow: no serious finding, and nothing to scroll sideways down to 320 pixels. */
async function accessible(page, what) {
  // 590 pixels are this page at 200 %.
  for (const [width, colorScheme] of [[1180, "light"], [590, ""], [320, "dark"]]) {
    await page.setViewportSize({ width, height: 760 });
    const [content, there] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(content <= there, `${what}: ${content} pixels wide in ${there}`);
    if (!colorScheme) continue;
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    assert.deepEqual(await seriousOf(page), [], `${what}, ${colorScheme}, ${width}`);
  }
  await page.emulateMedia({ colorScheme: null, reducedMotion: null });
  await page.setViewportSize({ width: 1180, height: 760 });
}

test("an edit, a mistake and its repair arrive without a reload", () => with_server(examples, async (server) => {
  const page = await open(server);
  await page.evaluate(() => (window.isSamePage = true));
  assert.equal(await textOf(page, ".facts .figure"), "1");
  for (let count = 0; count < 3; count += 1) await server.ask("expand", "--audience", MCP, "--scope", "openid");
  await server.ask("authorize", "--audience", MCP, "--registered-scope", "openid", "--scope", "openid payments");
  await page.locator(".decisions tbody tr", { hasText: "UNSUPPORTED" }).waitFor();
  await until(page, () => document.querySelector(".decisions tbody td:last-child").textContent === "3");
  // A picture needs some traffic.
  for (let count = 0; SCREENSHOTS && count < 150; count += 1) {
    const scope = count % 7 === 3 ? "openid payments" : "openid";
    await server.ask("authorize", "--audience", MCP, "--registered-scope", "openid", "--scope", scope);
  }
  await shoot(page, "overview", "light", "dark");

  const right = server.read("mcp-server.yaml");
  server.write("mcp-server.yaml", right.replace("baselineClientScopes: [offline_access]", "baselineClientScopes: [offline_access, profile]"));
  await until(page, () => document.querySelector(".facts .figure").textContent === "2");

  server.write("mcp-server.yaml", right.replace("baselineClientScopes: [offline_access]", "baselineClientScopes: [offline_acess]"));
  const notice = page.locator("#notices .notice.bad");
  await notice.waitFor();
  assert.match(await notice.innerText(), /not accepted, so generation 2 keeps serving/);
  assert.equal(await textOf(page, "#state"), "Serving the last good policy");
  await notice.getByRole("link").click();
  assert.equal(await page.evaluate(() => document.activeElement.id), "findings-title");
  const finding = page.locator(".findings li").first();
  assert.match(await finding.innerText(), /mcp-server\.yaml:\d+:\d+[\s\S]*offline_acess/);
  await finding.locator("summary").click();
  await finding.locator(".help pre").first().waitFor();
  await page.evaluate(() => scrollTo(0, 0));
  await shoot(page, "findings", "light");

  server.write("mcp-server.yaml", right);
  await until(page, () => document.querySelector("#notices").children.length === 0);
  await until(page, () => document.querySelector(".facts .figure").textContent === "3");
  assert.equal(await page.evaluate(() => window.isSamePage), true);
  await close(page);
}));

test("audiences are searched and shown", () => with_server(examples, async (server) => {
  const page = await open(server, "#/audiences");
  await page.getByRole("searchbox", { name: "Search audiences" }).fill("shop");
  await until(page, () => document.querySelector(".count").textContent === "2 of 4 audiences");
  await page.getByRole("searchbox").fill("scope:mcp:admin");
  await until(page, () => document.querySelector(".count").textContent === "1 of 4 audiences");
  await page.getByRole("link", { name: MCP }).click();
  await page.getByRole("heading", { name: MCP }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "audience-title");
  assert.match(await textOf(page, "#audience"), /policies\/mcp-server\.yaml:\d+:\d+[\s\S]*scopesSupported[\s\S]*native-tools/);
  await page.getByRole("searchbox").fill("");
  await until(page, () => document.querySelector(".count").textContent === "4 audiences");
  await shoot(page, "audiences", "light");
  await page.getByRole("searchbox").fill("nothing like it");
  await until(page, () => document.querySelector(".count").textContent === "0 of 4 audiences");
  // The address leads back to what is shown.
  const there = await open(server, "#/audiences?q=shop");
  await until(there, () => document.querySelector(".count").textContent === "2 of 4 audiences");
  await page.getByRole("link", { name: "Ask about it" }).click();
  assert.equal(await page.getByRole("textbox", { name: "Audiences" }).inputValue(), MCP);
  await close(there);
  await close(page);
}));

test("each question is answered with its grounds", () => with_server(examples, async (server) => {
  const page = await open(server, "#/ask");
  await page.getByRole("textbox", { name: "Audiences" }).fill(MCP);
  await page.getByLabel("Scope", { exact: true }).fill("openid offline_access payments");
  await page.getByLabel("Registered scope").fill("openid");
  await page.getByRole("button", { name: "Ask" }).click();
  await page.locator(".decision.bad").waitFor();
  assert.equal(await textOf(page, ".decision"), "DENY UNSUPPORTED");
  assert.match(await textOf(page, "#answer"), /payments[\s\S]*in no entry of scopesSupported[\s\S]*error=invalid_scope/);
  await shoot(page, "ask", "light", "dark");
  await page.getByLabel("Which scopes may a token have?").check();
  await page.getByLabel("Scope", { exact: true }).fill("openid offline_access");
  await page.getByLabel("Granted scope").fill("openid");
  await page.getByRole("button", { name: "Ask" }).click();
  await until(page, () => document.querySelector(".decision").textContent === "DENY EXCEEDS_GRANT");
  assert.match(await textOf(page, "#answer"), /offline_access[\s\S]*not in the grant[\s\S]*error=invalid_scope/);
  await page.getByLabel("The client presents").selectOption("its own credentials");
  await page.getByLabel("It stands for no scope of its own").check();
  await page.getByRole("button", { name: "Ask" }).click();
  await page.locator(".decision.good").waitFor();
  assert.equal(await textOf(page, ".decision"), "ALLOW openid offline_access");
  await page.getByLabel("Which scopes shall a client hold that registers?").check();
  await page.getByLabel("Scope", { exact: true }).fill("openid");
  await page.getByLabel("Scope", { exact: true }).press("Enter");
  await until(page, () => document.querySelector("#answer").textContent.includes("ExpandRegistrationScopes"));
  assert.equal(await textOf(page, ".decision"), "ALLOW openid offline_access");
  assert.match(await textOf(page, "#answer"), /held by BASELINE: offline_access in baselineClientScopes policies\/mcp-server\.yaml:\d+:\d+/);
  // Of another policy the answer says so itself.
  server.write("mcp-server.yaml", server.read("mcp-server.yaml").replace("baselineClientScopes: [offline_access]", "baselineClientScopes: [offline_access, profile]"));
  await page.getByText("Generation 1 answered; generation 2 serves now. Ask again.").waitFor();
  await page.getByRole("button", { name: "Ask" }).click();
  await until(page, () => document.querySelector(".decision").textContent.includes("ALLOW openid offline_access profile"));
  // Nothing of it was counted.
  await page.getByRole("link", { name: "Overview" }).click();
  assert.match(await textOf(page, ".decisions"), /no denial since the server started/);
  await close(page);
}));

test("a server that is gone is missed, and found again", () => with_server(examples, async (server) => {
  const page = await open(server);
  await server.down();
  await page.getByText("No answer", { exact: true }).waitFor();
  assert.match(await textOf(page, "#notices"), /has not answered since \d\d:\d\d:\d\d UTC/);
  assert.ok(await page.evaluate(() => document.querySelector("main").classList.contains("stale")));
  await page.getByRole("link", { name: "Ask" }).click();
  await page.getByRole("button", { name: "Ask" }).click();
  await page.getByText("The server did not answer.").waitFor();
  await server.up();
  await page.getByText("Serving", { exact: true }).first().waitFor();
  await until(page, () => !document.querySelector("main").classList.contains("stale"));
  await page.getByRole("button", { name: "Ask" }).click();
  await page.locator(".decision").waitFor();
  // The browser itself says that it could not connect, and nothing else went wrong.
  page.wrong = page.wrong.filter((text) => !/^Failed to load resource: net::ERR_/.test(text));
  await close(page);
}));

test("a server that drains says so", () => with_server(examples, async (server) => {
  const page = await open(server);
  await page.route("**/console/api/live", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: { ...(await response.json()), status: "another" } });
  });
  await page.route("**/console/api/status", async (route) => {
    const response = await route.fetch();
    const { status } = await response.json();
    Object.assign(status.conditions[0], { status: "False", reason: "Draining", message: "the process is shutting down" });
    await route.fulfill({ response, json: { token: "another", status } });
  });
  await page.getByText("Draining", { exact: true }).first().waitFor();
  assert.match(await textOf(page, "#notices"), /takes no new calls/);
  await close(page);
}));

test("everything can be reached and used with the keyboard", () => with_server(examples, async (server) => {
  let page = await open(server);
  const focused = () => page.evaluate(() => {
    const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
    // Behind the last stop is the document itself.
    const isSeen = document.activeElement === document.body || (outlineStyle !== "none" && parseFloat(outlineWidth) > 0);
    return { text: (document.activeElement.innerText ?? "").trim(), id: document.activeElement.id, isSeen };
  });
  /** Presses Tab until something has the focus; every stop on the way is visible. */
  const tabTo = async (wanted) => {
    for (let presses = 0; presses < 40; presses += 1) {
      await page.keyboard.press("Tab");
      const { text, id, isSeen } = await focused();
      assert.ok(isSeen, `no visible focus at ${text || id}`);
      if (text === wanted || id === wanted) return;
    }
    assert.fail(`no way to ${wanted}`);
  };
  await page.keyboard.press("Tab");
  assert.equal((await focused()).text, "Skip to content");
  await page.keyboard.press("Enter");
  await until(page, () => document.activeElement.id === "main");
  await close(page);
  page = await open(server);
  await tabTo("Audiences");
  await page.keyboard.press("Enter");
  await until(page, () => document.activeElement.id === "audiences-title");
  await tabTo("search");
  await page.keyboard.type("mcp");
  await until(page, () => document.querySelector(".count").textContent === "1 of 4 audiences");
  await tabTo(MCP);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: MCP }).waitFor();
  await tabTo("Ask about it");
  await page.keyboard.press("Enter");
  await until(page, () => document.activeElement.id === "ask-scope");
  await page.keyboard.type("openid");
  await page.keyboard.press("Enter");
  await page.locator(".decision").waitFor();
  await close(page);
}));

test("no view has a serious finding about accessibility", () => with_server(examples, async (server) => {
  // What is injected to look is no part of the page.
  const page = await open(server, "#/", { bypassCSP: true });
  await accessible(page, "overview");
  await page.goto(`${server.origin}/console#/audiences?name=${encodeURIComponent(MCP)}`);
  await page.locator("#audience h3").first().waitFor();
  await accessible(page, "audiences");
  await page.goto(`${server.origin}/console#/ask?audience=${encodeURIComponent(MCP)}`);
  await page.locator("summary", { hasText: "Client" }).click();
  await page.getByLabel("Scope", { exact: true }).fill("openid payments");
  await page.getByRole("button", { name: "Ask" }).click();
  await page.locator(".decision").waitFor();
  await accessible(page, "ask");
  server.write("mcp-server.yaml", "audiences: {https://mcp.example.com: {scopesSuported: [openid]}}\n");
  await page.goto(`${server.origin}/console#/`);
  await page.locator(".findings summary").first().click();
  await page.locator(".help p").nth(1).waitFor();
  await accessible(page, "findings");
  await server.down();
  await page.getByText("No answer", { exact: true }).waitFor();
  await accessible(page, "no answer");
  await page.emulateMedia({ reducedMotion: "reduce" });
  assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector(".panel")).transitionDuration), "0s");
  await page.context().close();
}));

test("a hundred thousand audiences do not fill the page", async () => {
  const many = (folder) => {
    const lines = Array.from({ length: 100_000 }, (_, at) => `  https://n${at}.example.com: {scopesSupported: [openid, s]}\n`);
    fs.writeFileSync(path.join(folder, "many.yaml"), `audiences:\n${lines.join("")}`);
  };
  await with_server(many, async (server) => {
    const page = await open(server, "#/audiences");
    await until(page, () => document.querySelector(".count").textContent === "100,000 audiences");
    const searches = () => page.asked.filter((url) => url.includes("/api/audiences")).length;
    const before = searches();
    const typed = "n9999.example";
    await page.getByRole("searchbox").pressSequentially(typed);
    await until(page, () => document.querySelector(".count").textContent === "1 of 100,000 audiences");
    assert.ok(searches() - before <= typed.length, `${searches() - before} searches for ${typed.length} letters`);
    await page.getByRole("searchbox").fill("");
    await until(page, () => document.querySelector(".count").textContent === "100,000 audiences");
    // Pages take the place of one another.
    for (const expected of ["26–50 of 100,000", "51–75 of 100,000"]) {
      await page.getByRole("link", { name: "Next" }).click();
      await page.getByText(expected).waitFor();
      const [rows, nodes] = await page.evaluate(() => [document.querySelectorAll(".audiences tbody tr").length, document.querySelectorAll("*").length]);
      assert.equal(rows, 25);
      assert.ok(nodes < 1000, `${nodes} elements`);
    }
    await page.goBack();
    await page.getByText("26–50 of 100,000").waitFor();
    await close(page);
  });
});

test("text of others stays text, and the page runs nothing but its own files", () => with_server((folder) => {
  fs.writeFileSync(path.join(folder, "odd.yaml"), "audiences:\n  \"<img src=x onerror=alert(1)>\":\n    scopesSupported: [\"<script>\", openid]\n    description: \"a\\u202eb <b>bold</b>\"\n");
}, async (server) => {
  const page = await open(server, "#/audiences");
  await page.getByRole("link", { name: "<img src=x" }).click();
  await page.locator("#audience h3").first().waitFor();
  assert.match(await textOf(page, "#audience"), /a\\u\{202e\}b <b>bold<\/b>[\s\S]*<script>/);
  const made = await page.evaluate(() => document.querySelectorAll("main img, main script, main b").length);
  assert.equal(made, 0);
  await close(page);
  const other = await open(server);
  const refused = await other.evaluate(() => {
    try {
      document.body.insertAdjacentHTML("beforeend", "<b>x</b>");
      return false;
    } catch {
      return true;
    }
  });
  assert.ok(refused, "markup from a string");
  await other.evaluate(() => {
    const script = document.createElement("style");
    script.textContent = "body { display: none }";
    document.head.append(script);
  });
  assert.notEqual(await other.evaluate(() => getComputedStyle(document.body).display), "none");
  await other.context().close();
}));
