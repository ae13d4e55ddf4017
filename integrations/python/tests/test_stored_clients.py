"""Clients that did not register with Scopeward: from before it, from metadata documents, from an operator."""

from __future__ import annotations

import secrets

import authlib_core
import authlib_flask
import demo
import mcp_sdk
import pytest
from authlib_core import Store, StoredClient
from demo import Login, OAuthFailure
from mcp.server.auth.provider import AuthorizationParams, AuthorizeError
from mcp.shared.auth import OAuthClientInformationFull
from pydantic import AnyUrl
from service import Service

from scopeward import AsyncClient
from scopeward.mcp import with_scopeward

CIMD = "https://app.example.com/client.json"


def stored(client_id: str, scope: str | None) -> OAuthClientInformationFull:
    return OAuthClientInformationFull(client_id=client_id, redirect_uris=[AnyUrl(demo.REDIRECT_URI)], scope=scope)


def parameters(scope: str | None) -> AuthorizationParams:
    return AuthorizationParams(
        state=secrets.token_hex(),
        scopes=None if scope is None else scope.split(" "),
        code_challenge=secrets.token_hex(),
        redirect_uri=AnyUrl(demo.REDIRECT_URI),
        redirect_uri_provided_explicitly=True,
    )


async def granted(provider: mcp_sdk.MemoryProvider, client_id: str, scope: str | None) -> str:
    client = await provider.get_client(client_id)
    assert client is not None
    # As the SDK does: first the client, which cannot be awaited, then the provider.
    params = parameters(scope).model_copy(update={"scopes": client.validate_scope(scope)})
    await provider.authorize(client, params)
    return " ".join(list(provider.codes.values())[-1].scopes)


async def test_mcp_sdk(shared: Service) -> None:
    inner = mcp_sdk.MemoryProvider()
    inner.clients = {
        "old": stored("old", "openid"),
        "scopeless": stored("scopeless", None),
        CIMD: stored(CIMD, "admin root mcp:write"),
    }
    async with AsyncClient(shared.target) as asking:
        provider = with_scopeward(inner, asking)
        # From before the baseline.
        assert await granted(provider, "old", "openid offline_access") == "openid offline_access"
        # Registered without scope: as if it had registered now.
        assert await granted(provider, "scopeless", None) == "openid mcp:read offline_access"
        # What a metadata document says of scopes is worth nothing.
        assert await granted(provider, CIMD, "openid mcp:read") == "openid mcp:read"
        with pytest.raises(AuthorizeError):
            await granted(provider, CIMD, "admin")
        assert await provider.get_client("nobody") is None
    # Nothing of this stuck.
    assert [client.scope for client in inner.clients.values()] == ["openid", None, "admin root mcp:write"]
    assert all(type(client) is OAuthClientInformationFull for client in inner.clients.values())


async def test_the_source_of_a_client_can_be_said(shared: Service) -> None:
    inner = mcp_sdk.MemoryProvider()
    inner.clients["fixed"] = stored("fixed", "openid")
    async with AsyncClient(shared.target) as asking:
        provider = with_scopeward(inner, asking, client_source=lambda client: "static")
        assert await granted(provider, "fixed", "mcp:read") == "mcp:read"


def test_authlib(shared: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = {"redirect_uris": [demo.REDIRECT_URI], "client_name": "Old"}
    old = {
        "old": StoredClient("old", {**metadata, "scope": "openid"}),
        "scopeless": StoredClient("scopeless", metadata),
        CIMD: StoredClient(CIMD, {**metadata, "scope": "admin"}),
    }
    monkeypatch.setattr(authlib_core, "Store", lambda: Store(clients=old))
    with demo.served(authlib_flask.EXAMPLE, shared.target) as base:
        login = Login(authlib_flask.EXAMPLE, base)
        assert login.login({"client_id": "old"}, "openid offline_access")["scope"] == "openid offline_access"
        assert login.login({"client_id": "old"}, "mcp:write")["scope"] == "mcp:write"
        assert login.login({"client_id": "scopeless"})["scope"] == "openid mcp:read offline_access"
        assert login.login({"client_id": CIMD}, "mcp:read")["scope"] == "mcp:read"
        with pytest.raises(OAuthFailure) as failure:
            login.authorize({"client_id": CIMD}, "admin")
        assert failure.value.error == "invalid_scope"
    assert [client.client_metadata.get("scope") for client in old.values()] == ["openid", None, "admin"]
