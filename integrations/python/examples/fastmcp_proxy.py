"""FastMCP in front of another authorization server (`OAuthProxy`), which is here a page that agrees to everything."""

from __future__ import annotations

import urllib.parse
from typing import Any

import demo
from fastmcp import FastMCP
from fastmcp.server.auth import OAuthProxy
from fastmcp.server.auth.providers.debug import DebugTokenVerifier
from key_value.aio.stores.memory import MemoryStore
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route

from scopeward import AsyncClient
from scopeward.fastmcp import with_scopeward


def make_app(target: str, base: str) -> Any:
    provider = OAuthProxy(
        upstream_authorization_endpoint=f"{base}/upstream/authorize",
        upstream_token_endpoint=f"{base}/upstream/token",
        upstream_client_id="upstream-client",
        upstream_client_secret="upstream-secret",
        token_verifier=DebugTokenVerifier(),
        base_url=base,
        valid_scopes=["openid", "profile", "offline_access", "mcp:read"],
        client_storage=MemoryStore(),
        jwt_signing_key="a key for this example alone",
    )
    app = FastMCP("Example", auth=with_scopeward(provider, AsyncClient(target), audience=demo.RESOURCE)).http_app()
    app.router.routes.insert(0, Route("/upstream/authorize", upstream_authorize))
    app.router.routes.insert(0, Route("/upstream/token", upstream_token, methods=["POST"]))
    return app


async def upstream_authorize(request: Request) -> RedirectResponse:
    query = urllib.parse.urlencode({"code": "upstream-code", "state": request.query_params["state"]})
    return RedirectResponse(f"{request.query_params['redirect_uri']}?{query}")


async def upstream_token(request: Request) -> JSONResponse:
    return JSONResponse(
        {"access_token": "upstream", "refresh_token": "upstream-refresh", "token_type": "Bearer", "expires_in": 3600}
    )


# FastMCP refuses a `resource` that is not its own URL, which the policy of the examples does not have.
EXAMPLE = demo.Example(make_app, resource=None)

if __name__ == "__main__":
    demo.main(EXAMPLE)
