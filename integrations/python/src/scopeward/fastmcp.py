"""Makes the authorization servers of FastMCP ask Scopeward: `OAuthProxy` with all providers made of it, and `OAuthProvider`.

    auth = with_scopeward(GitHubProvider(...), AsyncClient("127.0.0.1:50551"))
    server = FastMCP("Demo", auth=auth)
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fastmcp.server.auth import OAuthProvider
from mcp.server.auth.provider import AuthorizationParams, RefreshToken
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from ._adapter import source_of
from ._async_client import AsyncClient
from .answers import ClientSource
from .mcp import Asker, SourceOf, deferring, issued, undecided

if TYPE_CHECKING:
    from mcp.server.auth.provider import IdentityAssertionParams
    from starlette.routing import Route

__all__ = ["with_scopeward"]

ProviderT = TypeVar("ProviderT", bound=OAuthProvider)

# What the refresh of this request may issue, whatever scopes the upstream's answer has.
_refreshed: ContextVar[list[str] | None] = ContextVar("refreshed", default=None)


def with_scopeward(
    provider: ProviderT,
    client: AsyncClient,
    *,
    audience: str | None = None,
    client_source: SourceOf | None = None,
) -> ProviderT:
    """The same provider, with its scopes decided by Scopeward. Call it before the provider is given to `FastMCP`.

    Args:
        provider: An `OAuthProxy`, or any other `OAuthProvider`.
        client: Kept by the provider; close it when the server ends.
        audience: The resource that this server is for, if the policy has others as well: asked for at registration, and
            later for clients and tokens without `resource`.
        client_source: Where a client is from. By default `cimd` for an https client id, `static` for the upstream's own client id
            (some clients use it without registering), and `dcr` for any other.
    """
    if hasattr(provider, "_scopeward"):
        raise ValueError("the provider asks Scopeward already")
    provider.__class__ = _asking_class(type(provider))
    asking: Any = provider
    asking._scopeward = Asker(client, audience, client_source or asking._source_of)
    options = provider.client_registration_options
    asking._advertised_scopes = None if options is None else options.valid_scopes
    return provider


def _asking_class(kind: Any) -> Any:
    """The class of a provider with its moments asked for. Of one base, since an object takes no class of another layout."""

    class Asking(kind):  # type: ignore[misc]
        _scopeward: Asker
        _advertised_scopes: list[str] | None

        async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
            client: OAuthClientInformationFull | None = await super().get_client(client_id)
            return None if client is None else deferring(client)

        async def register_client(self, client_info: OAuthClientInformationFull) -> None:
            await self._scopeward.expand(client_info)
            await super().register_client(client_info)

        async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
            client, params = await self._scopeward.check(client, params)
            url: str = await super().authorize(client, params)
            return url

        async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> RefreshToken | None:
            token: RefreshToken | None = await super().load_refresh_token(client, refresh_token)
            return None if token is None else undecided(token)

        async def exchange_refresh_token(
            self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
        ) -> OAuthToken:
            refresh_token, scopes = await self._scopeward.narrow_refresh(client, refresh_token, scopes)
            before = _refreshed.set(scopes)
            try:
                return issued(await super().exchange_refresh_token(client, refresh_token, scopes), scopes)
            finally:
                _refreshed.reset(before)

        async def exchange_identity_assertion(
            self, client: OAuthClientInformationFull, params: IdentityAssertionParams
        ) -> OAuthToken:
            params = await self._scopeward.narrow_assertion(client, params)
            return issued(await super().exchange_identity_assertion(client, params), params.scopes or [])

        def _translate_scopes_from_idp(self, scopes: list[str]) -> list[str]:
            """Of `OAuthProxy`: what the upstream says that it granted, in the words of the client."""
            translated: list[str] = super()._translate_scopes_from_idp(scopes)
            allowed = _refreshed.get()
            return translated if allowed is None else [scope for scope in translated if scope in allowed]

        def get_routes(self, mcp_path: str | None = None) -> list[Route]:
            # The scopes in the options are advertised, but would also stand in for an omitted scope (with all of them) and
            # refuse others before the policy is asked. The routes take what they advertise now; the handler looks at each request.
            options = self.client_registration_options
            if options is None:
                return cast("list[Route]", super().get_routes(mcp_path))
            options.valid_scopes, options.default_scopes = self._advertised_scopes, None
            try:
                return cast("list[Route]", super().get_routes(mcp_path))
            finally:
                options.valid_scopes = None

        @property
        def scopes_supported(self) -> list[str]:
            return self._advertised_scopes or cast("list[str]", self.required_scopes)

        def update_default_scopes(self, scopes: list[str]) -> None:
            super().update_default_scopes(scopes)
            self._advertised_scopes = list(scopes)
            if (options := self.client_registration_options) is not None:
                options.valid_scopes = options.default_scopes = None

        def _source_of(self, client: OAuthClientInformationFull) -> ClientSource:
            is_upstream = client.client_id == getattr(self, "_upstream_client_id", None)
            return "static" if is_upstream else source_of(client.client_id)

    Asking.__name__, Asking.__qualname__ = kind.__name__, kind.__qualname__
    return Asking
