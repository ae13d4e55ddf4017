// An application that uses openid-client as its README does: discovers and registers, logs its user in, checks the ID token, refreshes.
import * as openid from 'openid-client';
import { serve, visit } from './protocol.mjs';

let settings, config;

function expect(what, scope, expected) {
  const sorted = text => String(text).split(' ').sort().join(' ');
  if (sorted(scope) !== sorted(expected)) throw new Error(`${what}: ${scope}, and ${expected} was to be`);
}

/** Fails with the OAuth error, if it is one. */
const named = attempt =>
  attempt.catch(failure => {
    throw new Error(failure.error ?? failure.message, { cause: failure });
  });

await serve({
  /** With `scope`, and `expected` as what the answer says. */
  register: async message => {
    settings = message;
    const metadata = {
      client_name: 'Example Tool',
      redirect_uris: [settings.redirect_uri],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
      scope: settings.scope,
    };
    const insecure = { execute: [openid.allowInsecureRequests] };
    config = await named(openid.dynamicClientRegistration(new URL(settings.issuer), metadata, openid.None(), insecure));
    expect('registered', config.clientMetadata().scope, settings.expected);
  },
  /** With `scope`, and `expected` as what the tokens have. */
  login: async ({ scope, expected }) => {
    const verifier = openid.randomPKCECodeVerifier();
    const [state, nonce] = [openid.randomState(), openid.randomNonce()];
    const url = openid.buildAuthorizationUrl(config, {
      redirect_uri: settings.redirect_uri,
      scope,
      code_challenge: await openid.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      state,
      nonce,
    });
    const checks = { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce };
    const tokens = await named(openid.authorizationCodeGrant(config, await visit(url, settings.redirect_uri), checks));
    expect('granted', tokens.scope, expected);
    if (tokens.refresh_token) expect('refreshed', (await openid.refreshTokenGrant(config, tokens.refresh_token)).scope, expected);
  },
});
