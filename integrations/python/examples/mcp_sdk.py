"""The authorization server of the MCP Python SDK, with a provider that keeps everything in memory."""

from __future__ import annotations

import secrets
import time
from typing import Any

import demo
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette

from scopeward import AsyncClient
from scopeward.mcp import with_scopeward


class MemoryProvider(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """Approves every request. A real one shows a login and a consent page."""

    def __init__(self) -> None:
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.refresh_tokens: dict[str, RefreshToken] = {}

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.clients[client_info.client_id] = client_info

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        code = AuthorizationCode(
            code=secrets.token_urlsafe(32),
            scopes=params.scopes or [],
            expires_at=time.time() + 60,
            client_id=client.client_id,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        self.codes[code.code] = code
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        del self.codes[authorization_code.code]
        scopes = authorization_code.scopes
        return self._tokens(client, scopes, scopes, authorization_code.resource)

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> RefreshToken | None:
        return self.refresh_tokens.get(refresh_token)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        del self.refresh_tokens[refresh_token.token]
        # The new refresh token has the grant of the old one (RFC 6749 section 6), whatever this access token gets.
        return self._tokens(client, scopes, refresh_token.scopes, refresh_token.resource)

    async def load_access_token(self, token: str) -> AccessToken | None:
        return None

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        pass

    def _tokens(
        self, client: OAuthClientInformationFull, scopes: list[str], granted: list[str], resource: str | None
    ) -> OAuthToken:
        refresh = RefreshToken(
            token=secrets.token_urlsafe(32), client_id=client.client_id, scopes=granted, resource=resource
        )
        self.refresh_tokens[refresh.token] = refresh
        return OAuthToken(access_token=secrets.token_urlsafe(32), refresh_token=refresh.token, scope=" ".join(scopes))


def make_app(target: str, base: str) -> Any:
    provider = with_scopeward(MemoryProvider(), AsyncClient(target))
    options = ClientRegistrationOptions(enabled=True)  # no valid_scopes, no default_scopes: the policy has them
    return Starlette(routes=create_auth_routes(provider, AnyHttpUrl(base), client_registration_options=options))


EXAMPLE = demo.Example(make_app)

if __name__ == "__main__":
    demo.main(EXAMPLE)
