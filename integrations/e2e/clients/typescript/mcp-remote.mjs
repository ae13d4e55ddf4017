// A host that starts mcp-remote and talks to it over its standard streams, with a user who follows the link that it prints.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { serve, visit } from './protocol.mjs';

const program = new URL('./node_modules/mcp-remote/dist/proxy.js', import.meta.url).pathname;
let settings, folder, port, remote;

class Remote {
  constructor() {
    const metadata = settings.scope === null ? [] : ['--static-oauth-client-metadata', JSON.stringify({ scope: settings.scope })];
    const document = settings.client_metadata_url ? ['--client-metadata-url', settings.client_metadata_url] : [];
    // The redirect URI of the harness, but for its port where there is no metadata document that names it.
    const { hostname, pathname } = new URL(settings.redirect_uri);
    const callback = ['--host', hostname, '--callback-path', pathname];
    const options = ['--transport', 'http-only', '--auth-timeout', '300', ...callback, ...metadata, ...document];
    this.process = spawn(process.execPath, [program, settings.server, String(port), ...options], {
      env: { ...process.env, MCP_REMOTE_CONFIG_DIR: folder, DISPLAY: '', BROWSER: 'true' },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.waiting = new Map();
    this.said = [];
    this.visits = Promise.resolve();
    this.ended = new Promise(resolve => this.process.on('exit', resolve));
    this.waits = new Promise(resolve => (this.startsToWait = resolve));
    createInterface({ input: this.process.stdout }).on('line', line => {
      const message = JSON.parse(line);
      this.waiting.get(message.id)?.(message);
    });
    createInterface({ input: this.process.stderr }).on('line', line => this.hear(line));
  }

  hear(line) {
    if (process.env.E2E_VERBOSE) process.stderr.write(`mcp-remote: ${line}\n`);
    const text = line.replace(/^\[\d+\] /, '').trim();
    this.said.push(text);
    if (text.includes('Waiting for authorization')) this.startsToWait();
    if (/^http:\S+[?&]response_type=code\S*$/.test(text)) this.visits = this.visits.then(() => this.follow(text));
  }

  async follow(link) {
    if (this.process.exitCode !== null) return;
    const callback = await visit(link, new URL(link).searchParams.get('redirect_uri'));
    // It forgets an error that comes before it waits for one, and then waits for ever. A person takes longer than that.
    if (callback.searchParams.has('error')) await Promise.race([this.waits, this.ended]);
    // At a step-up it opens the browser first and listens then; a person takes longer than that to agree.
    for (let attempt = 0; attempt < 200; attempt++) {
      try {
        await fetch(callback, { signal: AbortSignal.timeout(10_000) });
        return;
      } catch (error) {
        if (error.cause?.code !== 'ECONNREFUSED') return;
        await new Promise(resolve => setTimeout(resolve, 50));
      }
    }
    this.said.push('Error: the browser could not connect to the redirect URI');
  }

  /** The answer of the server, or what mcp-remote said when it gave up. */
  async ask(method, params) {
    const id = crypto.randomUUID();
    const answered = new Promise(resolve => this.waiting.set(id, resolve));
    this.process.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`);
    const waited = new Promise(resolve => setTimeout(resolve, 120_000).unref());
    const answer = await Promise.race([answered, this.ended.then(() => undefined), waited]);
    if (answer === undefined) throw new Error(this.lastWords());
    if (answer.error) throw new Error(answer.error.message);
    return answer.result;
  }

  lastWords() {
    return this.said.findLast(line => /^(Fatal )?error/i.test(line)) ?? `mcp-remote ended: ${this.said.at(-1)}`;
  }

  async end() {
    this.process.kill();
    await this.ended;
  }
}

/** Below those that the system gives to connections: it has to be free at the second login, too. */
async function freePort() {
  for (let attempt = 0; ; attempt++) {
    const number = 20_000 + Math.floor(Math.random() * 12_000);
    const server = createServer();
    try {
      server.listen(number, '127.0.0.1');
      await once(server, 'listening');
      server.close();
      return number;
    } catch (error) {
      if (attempt === 20) throw error;
    }
  }
}

const end = async () => {
  await remote?.end();
  remote = undefined;
};

await serve({
  new: async message => {
    settings = message;
    if (folder) await rm(folder, { recursive: true, force: true });
    folder = await mkdtemp(join(tmpdir(), 'mcp-remote-'));
    port = message.client_metadata_url ? Number(new URL(message.redirect_uri).port) : await freePort();
  },
  forget: async () => {
    await end();
    const files = await readdir(folder, { recursive: true });
    await Promise.all(files.filter(file => file.endsWith('tokens.json')).map(file => rm(join(folder, file))));
  },
  connect: async () => {
    await end();
    remote = new Remote();
    const params = { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'example-host', version: '1' } };
    await remote.ask('initialize', params);
    remote.process.stdin.write('{"jsonrpc":"2.0","method":"notifications/initialized"}\n');
  },
  call: ({ tool }) => remote.ask('tools/call', { name: tool, arguments: {} }),
  end,
});
if (folder) await rm(folder, { recursive: true, force: true });
