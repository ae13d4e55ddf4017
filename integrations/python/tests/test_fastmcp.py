"""What only FastMCP has: metadata documents, what it advertises, and an upstream. It wants a newer Python than the package does."""

from __future__ import annotations

from typing import Any

import demo
import pytest
from demo import Login, OAuthFailure
from service import Service
from starlette.requests import Request
from starlette.responses import JSONResponse
from test_refresh import WITHOUT_PROFILE, scopes
from test_stored_clients import CIMD

from scopeward import AsyncClient

fastmcp_proxy = pytest.importorskip("fastmcp_proxy")

from fastmcp.server.auth.cimd import CIMDDocument  # noqa: E402

from scopeward.fastmcp import with_scopeward  # noqa: E402


@pytest.fixture
def proxy(shared: Service, monkeypatch: pytest.MonkeyPatch) -> Any:
    providers: list[Any] = []

    def keep(provider: Any, *arguments: Any, **named: Any) -> Any:
        providers.append(with_scopeward(provider, *arguments, **named))
        return providers[0]

    monkeypatch.setattr(fastmcp_proxy, "with_scopeward", keep)
    with demo.served(fastmcp_proxy.EXAMPLE, shared.target) as base:
        yield providers[0], Login(fastmcp_proxy.EXAMPLE, base)


def test_a_metadata_document(proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    provider, login = proxy

    async def fetch(url: str) -> CIMDDocument:
        return CIMDDocument(client_id=url, client_name="App", redirect_uris=[demo.REDIRECT_URI], scope="admin profile")

    monkeypatch.setattr(provider._cimd_manager._fetcher, "fetch", fetch)
    tokens = login.login({"client_id": CIMD}, "openid mcp:read")
    assert tokens["scope"] == "openid mcp:read"
    for scope in ("admin", "openid profile"):  # FastMCP would take both: one is in the document, one in its default
        with pytest.raises(OAuthFailure) as failure:
            login.authorize({"client_id": CIMD}, scope)
        assert failure.value.error == "invalid_scope"


def test_it_advertises_as_before(proxy: Any) -> None:
    provider, login = proxy
    url = f"{login.base}/.well-known/oauth-authorization-server"
    advertised = ["openid", "profile", "offline_access", "mcp:read"]
    assert login.call("GET", url, "", "application/json")["scopes_supported"] == advertised
    assert provider.scopes_supported == advertised
    provider.update_default_scopes([*advertised, "mcp:write"])
    assert provider.scopes_supported == [*advertised, "mcp:write"]
    # Which are still no defaults.
    assert login.register()["scope"] == "openid mcp:read offline_access"
    with pytest.raises(ValueError):
        with_scopeward(provider, AsyncClient())


def test_the_upstream_of_a_proxy_does_not_widen(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def upstream_token(request: Request) -> JSONResponse:
        body = {"access_token": "upstream", "refresh_token": "upstream-refresh", "token_type": "Bearer", "expires_in": 3600}
        return JSONResponse({**body, "scope": "openid profile mcp:read"})

    monkeypatch.setattr(fastmcp_proxy, "upstream_token", upstream_token)
    with demo.served(fastmcp_proxy.EXAMPLE, service.target) as base:
        login = Login(fastmcp_proxy.EXAMPLE, base)
        client = login.register("openid profile")
        tokens = login.login(client, "openid profile")
        service.write_policy(WITHOUT_PROFILE)
        tokens = login.refresh(client, tokens, "openid")
        assert scopes(tokens) == {"openid"}
