"""The lines that each guide adds are true: they run, and what they make asks."""

from __future__ import annotations

import ast
from typing import Any

import authlib_core
import demo
import httpx
import mcp_sdk
import pages
import pytest
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc7636 import CodeChallenge
from flask import Flask
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions
from pydantic import AnyHttpUrl
from service import Service
from starlette.applications import Starlette

GUIDES = pages.PACKAGE.parents[1] / "docs/guides"


def run(guide: str, target: str, **known: Any) -> dict[str, Any]:
    """The first Python block of the page, with the names that it takes as known."""
    block = next(block for language, _, block in pages.fences((GUIDES / f"{guide}.md").read_text()) if language == "python")
    text = "\n".join(block).replace("127.0.0.1:50551", target)
    assert target in text
    exec(text, known)
    return known


async def registers(app: Any) -> str:
    """The scope of a client that registers with `openid`."""
    metadata = {"redirect_uris": [demo.REDIRECT_URI], "token_endpoint_auth_method": "none", "scope": "openid"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as http:
        answer = await http.post("/register", json=metadata)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["scope"])


async def test_mcp_python_sdk(shared: Service) -> None:
    made = run(
        "mcp-python-sdk",
        shared.target,
        MyProvider=mcp_sdk.MemoryProvider,
        issuer_url=AnyHttpUrl("http://localhost"),
        ClientRegistrationOptions=ClientRegistrationOptions,
        create_auth_routes=create_auth_routes,
    )
    assert await registers(Starlette(routes=made["routes"])) == "openid offline_access"


async def test_fastmcp(shared: Service) -> None:
    fastmcp = pytest.importorskip("fastmcp")
    from fastmcp.server.auth.providers.github import GitHubProvider

    made = run("fastmcp", shared.target, FastMCP=fastmcp.FastMCP, GitHubProvider=GitHubProvider)
    asker = made["auth"]._scopeward
    assert asker._audiences == ("https://mcp.example.com/mcp",)
    asker._audiences = ()  # the policy here has another one
    assert await registers(made["server"].http_app()) == "openid offline_access"


def test_authlib(shared: Service) -> None:
    parts: dict[str, Any] = {}

    class Recorder:
        def register_grant(self, grant: type[Any], extensions: object = None) -> None:
            parts[grant.__name__] = grant

        register_endpoint = register_grant

    store = authlib_core.Store()
    authlib_core.register(Recorder(), store)
    app = Flask("guide")
    made = run(
        "authlib",
        shared.target,
        AuthorizationServer=AuthorizationServer,
        CodeChallenge=CodeChallenge,
        app=app,
        query_client=store.query_client,
        save_token=store.save_token,
        MyAuthorizationCodeGrant=parts["Codes"],
        MyClientRegistrationEndpoint=parts["Registration"],
        MyClientConfigurationEndpoint=parts["Configuration"],
    )
    app.post("/register")(lambda: made["server"].create_endpoint_response("client_registration"))
    metadata = {"redirect_uris": [demo.REDIRECT_URI], "token_endpoint_auth_method": "none", "scope": "openid"}
    answer = app.test_client().post("/register", json=metadata, base_url="http://localhost")
    assert (answer.status_code, answer.get_json()["scope"]) == (201, "openid offline_access")


def test_django_settings_are_those_of_the_example() -> None:
    """Which runs with them: the toolkit ignores a name that it does not know."""

    def settings(text: str) -> dict[str, object]:
        """The texts of settings, and what they have."""
        found = {}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values):
                    if isinstance(key, ast.Constant) and isinstance(value, (ast.Constant, ast.Tuple)):
                        found[str(key.value)] = ast.literal_eval(value)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "include":
                found["include"] = ast.literal_eval(node.args[0])
        return found

    page = (GUIDES / "django-oauth-toolkit.md").read_text()
    text = next("\n".join(block) for language, _, block in pages.fences(page) if language == "python")
    assert '"scopeward.django"]' in text
    guide, example = settings(text), settings((pages.PACKAGE / "examples/django_toolkit.py").read_text())
    assert guide.pop("target") == "127.0.0.1:50551"
    assert len(guide) == 7 and guide.items() <= example.items()
