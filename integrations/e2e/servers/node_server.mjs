// Runs one of the example servers of `integrations/node` for the harness, as `python_server.py` does for those of Python.
import { createServer } from 'node:http';
import { createRequire, register } from 'node:module';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    target: { type: 'string' },
    base: { type: 'string' },
    resource: { type: 'string' },
    document: { type: 'string' },
    fault: { type: 'string', default: 'none' },
  },
});
const [name] = positionals;
const here = process.env.E2E_NODE ? `${pathToFileURL(process.env.E2E_NODE)}/` : new URL('../../node/', import.meta.url);

if (values.fault === 'no-adapter') {
  const plain = 'data:text/javascript,export const withScopeward = server => server;';
  const hooks = `export const resolve = (specifier, context, next) =>
    specifier.startsWith('scopeward/') ? { url: ${JSON.stringify(plain)}, shortCircuit: true } : next(specifier, context);`;
  register(`data:text/javascript,${encodeURIComponent(hooks)}`);
}
const { Client, Denied } = await import(new URL('dist/index.js', here));
// A busy machine may take a second for an answer, and no case is about that.
const client = new Client(values.target, { deadline: 3000 });
if (values.fault === 'ignore-answer') {
  const check = client.checkAuthorizeScopes.bind(client);
  client.checkAuthorizeScopes = async question => {
    try {
      return await check(question);
    } catch (error) {
      if (!(error instanceof Denied)) throw error;
      const scope = question.scope ?? 'openid profile mcp:read mcp:write admin root';
      return { scope, effectiveRegisteredScope: scope, added: [], refused: [], audienceGrants: [] };
    }
  };
}

const { EXAMPLE } = await import(new URL(`examples/${name}.mjs`, here));
const server = createServer();
await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address();
const document = values.document && JSON.parse(values.document);
server.on('request', await EXAMPLE.makeApp(client, values.base ?? `http://localhost:${port}`, await configured()));
const { register: registration = '/register', authorize = '/authorize', token = '/token' } = EXAMPLE;
console.log(JSON.stringify({ port, register: registration, authorize, token }));

/** What an example takes in addition: its resource, and what makes it know the metadata document, whose https URL nothing on loopback can serve. */
async function configured() {
  const response = () => Response.json(document, { headers: { 'cache-control': 'max-age=600' } });
  const fetchDocument = async (url, options) => (String(url) === document?.client_id ? response() : fetch(url, options));
  if (name === 'oidc-provider') return { fetch: fetchDocument };
  if (name === 'mcp-sdk') return document && [document];
  const { createCimdClientDiscovery } = await import(createRequire(new URL('dist/index.js', here)).resolve('@better-auth/cimd'));
  return {
    ...(values.resource && { resources: [values.resource], clientRegistrationDefaultResources: [values.resource] }),
    extensions: [{ clientDiscovery: createCimdClientDiscovery({ fetchClientMetadataResource: fetchDocument }) }],
  };
}

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
