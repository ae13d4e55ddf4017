// An application that uses the MCP TypeScript SDK as its own example does (`examples/client/simpleOAuthClient`).
// Usage: node sdk.mjs 1.20|1.25|1.32|2.4
import { Cannot, serve, visit } from './protocol.mjs';

const version = process.argv[2];
const { Client, StreamableHTTPClientTransport, UnauthorizedError } = await load();

async function load() {
  if (version.startsWith('2.')) return import('@modelcontextprotocol/client');
  const [client, transport, auth] = await Promise.all(
    ['client/index.js', 'client/streamableHttp.js', 'client/auth.js'].map(path => import(`sdk-${version}/${path}`)),
  );
  return { ...client, ...transport, ...auth };
}

/** Keeps what the SDK gives it, in memory. */
class Provider {
  constructor({ scope, redirect_uri, client_metadata_url }) {
    this.redirectUrl = redirect_uri;
    this.clientMetadataUrl = client_metadata_url ?? undefined;
    this.clientMetadata = {
      client_name: 'Example Tool',
      redirect_uris: [redirect_uri],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
      ...(scope === null ? {} : { scope }),
    };
  }
  state = () => crypto.randomUUID();
  clientInformation = () => this.client;
  saveClientInformation = client => void (this.client = client);
  tokens = () => this.stored;
  saveTokens = tokens => void (this.stored = tokens);
  saveCodeVerifier = verifier => void (this.verifier = verifier);
  codeVerifier = () => this.verifier;
  redirectToAuthorization = url => void (this.pending = url);
}

let settings, provider, client, transport;

/** Runs `attempt`; if that wants a login, has the user log in and runs it again, once. */
async function withLogin(attempt) {
  try {
    await attempt();
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
    const callback = await visit(provider.pending);
    const parameters = callback.searchParams;
    if (version.startsWith('2.')) {
      // From 2 on the SDK looks at all parameters, `iss` and `error` included.
      await transport.finishAuth(parameters);
    } else {
      if (parameters.has('error')) throw new Error(`OAuth authorization failed: ${parameters.get('error')}`);
      await transport.finishAuth(parameters.get('code'));
    }
    await attempt();
  }
}

await serve({
  new: async message => {
    if (message.client_metadata_url && version === '1.20') throw new Cannot('this version knows no metadata documents');
    settings = message;
    provider = new Provider(message);
  },
  forget: async () => {
    provider.stored = undefined;
  },
  connect: () =>
    withLogin(async () => {
      client = new Client({ name: 'example-tool', version: '1.0.0' });
      transport = new StreamableHTTPClientTransport(new URL(settings.server), { authProvider: provider });
      await client.connect(transport);
    }),
  call: ({ tool }) => withLogin(() => client.callTool({ name: tool, arguments: {} })),
  end: async () => {
    await client?.close();
    client = undefined;
  },
});
