"""What `scopeward export --format mcp-sdk` prints is taken by the SDK, and does what its comments say."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import httpx
from mcp.server.auth.routes import create_auth_routes
from mcp_sdk import MemoryProvider
from pydantic import AnyHttpUrl
from service import POLICY, binary
from starlette.applications import Starlette


async def test_the_sdk_registers_with_the_exported_lists(tmp_path: Path) -> None:
    (tmp_path / "mcp.yaml").write_text(POLICY)
    command = [binary(), "export", str(tmp_path), "--format", "mcp-sdk"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    exported: dict[str, Any] = {}
    exec(text, exported)
    options = exported["client_registration_options"]
    routes = create_auth_routes(MemoryProvider(), AnyHttpUrl("http://localhost"), client_registration_options=options)
    transport = httpx.ASGITransport(app=Starlette(routes=routes))

    async def register(**more: str) -> tuple[int, Any]:
        metadata = {"redirect_uris": ["http://127.0.0.1/callback"], "token_endpoint_auth_method": "none", **more}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            answer = await http.post("/register", json=metadata)
            return answer.status_code, answer.json().get("scope", answer.json().get("error"))

    assert await register() == (201, "openid mcp:read offline_access")
    assert await register(scope="openid") == (201, "openid")
    assert "a client that registers with a scope does not get the baseline in addition: `offline_access`" in text
    assert await register(scope="openid admin") == (201, "openid admin")
    assert await register(scope="openid root") == (400, "invalid_client_metadata")
