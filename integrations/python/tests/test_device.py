"""The device flow (RFC 8628) of Authlib: what a device asks for is decided as at the authorize endpoint."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from typing import Any

import authlib_core
import authlib_flask
import demo
import pytest
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint, DeviceCodeGrant, DeviceCredentialDict
from demo import Login, OAuthFailure
from service import Service

from scopeward import Unavailable

GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@pytest.fixture
def login(shared: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    credentials: dict[str, DeviceCredentialDict] = {}
    servers: list[Any] = []
    register = authlib_core.register

    class Devices(DeviceAuthorizationEndpoint):  # type: ignore[misc]
        def get_verification_uri(self) -> str:
            return "http://localhost/device"

        def save_device_credential(self, client_id: str, scope: str, data: dict[str, Any]) -> None:
            stored = DeviceCredentialDict({"client_id": client_id, "scope": scope, "expires_at": 1 << 40, **data})
            credentials[data["device_code"]] = stored

    class Grant(DeviceCodeGrant):  # type: ignore[misc]
        def query_device_credential(self, device_code: str) -> DeviceCredentialDict | None:
            return credentials.get(device_code)

        def query_user_grant(self, user_code: str) -> tuple[str, bool]:
            return "user", True

        def should_slow_down(self, credential: DeviceCredentialDict) -> bool:
            return False

    def with_devices(server: Any, store: authlib_core.Store) -> None:
        register(server, store)
        server.register_endpoint(Devices)
        server.register_grant(Grant)
        servers.append(server)

    def make_app(target: str, base: str) -> Any:
        app = authlib_flask.make_app(target, base)
        app.post("/device_authorization")(lambda: servers[0].create_endpoint_response("device_authorization"))
        return app

    monkeypatch.setattr(authlib_core, "register", with_devices)
    monkeypatch.setattr(authlib_core.StoredClient, "check_grant_type", lambda self, grant_type: True)
    example = demo.Example(make_app, is_asgi=False)
    with demo.served(example, shared.target) as base:
        yield Login(example, base)


def ask(login: Login, client: dict[str, Any], scope: str | None) -> str:
    form = {"client_id": client["client_id"]} | ({} if scope is None else {"scope": scope})
    kind = "application/x-www-form-urlencoded"
    asked = login.call("POST", f"{login.base}/device_authorization", urllib.parse.urlencode(form), kind)
    tokens = login.token(client, grant_type=GRANT, device_code=asked["device_code"])
    return str(tokens["scope"])


def test_a_device_gets_what_the_policy_grants(login: Login) -> None:
    client = login.register("openid")
    assert ask(login, client, "openid offline_access") == "openid offline_access"
    assert ask(login, client, "openid mcp:write") == "openid mcp:write"
    assert ask(login, client, None) == "openid offline_access"


@pytest.mark.parametrize("scope", ["openid root", "openid profile", "admin"])
def test_a_device_is_refused_what_the_policy_refuses(login: Login, scope: str) -> None:
    with pytest.raises(OAuthFailure) as failure:
        ask(login, login.register("openid"), scope)
    assert (failure.value.status, failure.value.error) == (400, "invalid_scope")
    assert scope.split()[-1] in failure.value.answer["error_description"]


def test_a_device_gets_nothing_without_an_answer(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    client = login.register("openid")
    monkeypatch.setattr("scopeward._channel.Connection.metadata", unreadable)
    with pytest.raises(OAuthFailure) as failure:
        ask(login, client, "openid")
    assert (failure.value.status, failure.value.error) == (500, "server_error")


def unreadable(*_: Any) -> Any:
    raise Unavailable("no token", code="UNAUTHENTICATED", kind="authorize")
