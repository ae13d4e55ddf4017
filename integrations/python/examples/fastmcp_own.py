"""FastMCP with an authorization server of its own."""

from __future__ import annotations

from typing import Any

import demo
from fastmcp import FastMCP
from fastmcp.server.auth.providers.in_memory import InMemoryOAuthProvider
from mcp.server.auth.settings import ClientRegistrationOptions

from scopeward import AsyncClient
from scopeward.fastmcp import with_scopeward


def make_app(target: str, base: str) -> Any:
    advertised = ["openid", "profile", "offline_access", "mcp:read"]
    provider = InMemoryOAuthProvider(
        base_url=base,
        client_registration_options=ClientRegistrationOptions(
            enabled=True, valid_scopes=advertised, default_scopes=advertised
        ),
    )
    return FastMCP("Example", auth=with_scopeward(provider, AsyncClient(target))).http_app()


EXAMPLE = demo.Example(make_app)

if __name__ == "__main__":
    demo.main(EXAMPLE)
