"""The device flow (RFC 8628): what a device asks for is decided as at the authorize endpoint."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import authlib_core
import authlib_flask
import demo
import pytest
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint, DeviceCodeGrant, DeviceCredentialDict
from demo import Login, OAuthFailure
from servers import eventually, serving
from service import POLICY, Service

from scopeward import Unavailable

GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass
class Device:
    login: Login
    path: str
    approve: Callable[[str], None]
    """The user agrees, to a user code."""

    def register(self, scope: str) -> dict[str, Any]:
        return self.login.register(scope, grant_types=[GRANT])

    def code(self, client: dict[str, Any], scope: str | None, **parameters: str) -> str:
        form = {"client_id": client["client_id"], **({} if scope is None else {"scope": scope}), **parameters}
        kind = "application/x-www-form-urlencoded"
        asked = self.login.call("POST", self.login.base + self.path, urllib.parse.urlencode(form), kind)
        self.approve(asked["user_code"])
        return str(asked["device_code"])

    def ask(self, client: dict[str, Any], scope: str | None, **parameters: str) -> set[str]:
        tokens = self.login.token(client, grant_type=GRANT, device_code=self.code(client, scope, **parameters))
        return set(str(tokens["scope"]).split())


@pytest.fixture
def authlib(shared: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
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
        yield Device(Login(example, base), "/device_authorization", lambda _: None)


@pytest.fixture
def django(shared: Service) -> Iterator[Device]:
    def approve(user_code: str) -> None:
        from django.contrib.auth.models import User
        from django.db import connection
        from oauth2_provider.models import DeviceGrant

        changed = DeviceGrant.objects.filter(user_code=user_code).update(status="authorized", user=User.objects.get())
        assert changed == 1
        connection.close()

    with serving("django_toolkit", shared.target) as (_, login):
        yield Device(login, "/o/device-authorization/", approve)


@pytest.fixture(params=["authlib", "django"])
def device(request: pytest.FixtureRequest) -> Device:
    found: Device = request.getfixturevalue(request.param)
    return found


def test_a_device_gets_what_the_policy_grants(device: Device) -> None:
    client = device.register("openid")
    assert device.ask(client, "openid offline_access") == {"openid", "offline_access"}
    assert device.ask(client, "openid mcp:write") == {"openid", "mcp:write"}
    assert device.ask(client, None) == {"openid", "offline_access"}


@pytest.mark.parametrize("scope", ["openid root", "openid profile", "admin"])
def test_a_device_is_refused_what_the_policy_refuses(device: Device, scope: str) -> None:
    with pytest.raises(OAuthFailure) as failure:
        device.ask(device.register("openid"), scope)
    assert (failure.value.status, failure.value.error) == (400, "invalid_scope")
    assert scope.split()[-1] in failure.value.answer["error_description"]


@pytest.mark.parametrize("scope", ["openid root", None])
def test_parameters_of_other_endpoints_open_nothing(django: Device, scope: str | None) -> None:
    client = django.register("openid")
    for parameters in (
        {"grant_type": "client_credentials"},
        {"grant_type": GRANT, "device_code": "x"},
        {"grant_type": "refresh_token"},
        {"response_type": "code"},
        {"scopes": "root"},
    ):
        if scope is not None:
            with pytest.raises(OAuthFailure) as failure:
                django.ask(client, scope, **parameters)
            assert (failure.value.status, failure.value.error) == (400, "invalid_scope"), parameters
        else:
            assert django.ask(client, scope, **parameters) == {"openid", "offline_access"}


def test_a_device_code_is_of_its_client(django: Device) -> None:
    code = django.code(django.register("openid"), "openid mcp:write")
    with pytest.raises(OAuthFailure) as failure:
        django.login.token(django.register("openid"), grant_type=GRANT, device_code=code)
    assert (failure.value.status, failure.value.error) == (400, "invalid_grant")


def test_the_token_request_has_no_scope_of_its_own(django: Device) -> None:
    client = django.register("openid")
    code = django.code(client, "openid")
    tokens = django.login.token(client, grant_type=GRANT, device_code=code, scope="openid root admin")
    assert tokens["scope"] == "openid"


def test_a_device_gets_what_is_left_where_the_policy_drops(tmp_path: Path) -> None:
    with Service(tmp_path) as service, serving("django_toolkit", service.target) as (_, login):
        dropping = "authorization:\n      unregisteredScopes: drop\n      unsupportedScopes: drop\n"
        service.write_policy(POLICY.replace("authorization:\n", dropping))
        client = login.register("openid", grant_types=[GRANT])
        form = urllib.parse.urlencode({"client_id": client["client_id"], "scope": "openid profile unheard:of"})
        asked = login.call("POST", f"{login.base}/o/device-authorization/", form, "application/x-www-form-urlencoded")
        from django.db import connection
        from oauth2_provider.models import DeviceGrant

        assert DeviceGrant.objects.get(device_code=asked["device_code"]).scope == "openid"
        connection.close()


def test_a_device_gets_nothing_without_an_answer(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    client = device.register("openid")
    monkeypatch.setattr("scopeward._channel.Connection.metadata", unreadable)
    with pytest.raises(OAuthFailure) as failure:
        device.ask(client, "openid")
    assert (failure.value.status, failure.value.error) == (500, "server_error")


def test_a_device_gets_nothing_while_the_service_is_down(tmp_path: Path) -> None:
    with Service(tmp_path) as service, serving("django_toolkit", service.target, deadline=0.5) as (_, login):
        device = Device(login, "/o/device-authorization/", lambda _: None)
        client = eventually(lambda: device.register("openid"))
        service.stop()
        with pytest.raises(OAuthFailure) as failure:
            device.ask(client, "openid")
        assert (failure.value.status, failure.value.error) == (503, "temporarily_unavailable")


def unreadable(*_: Any) -> Any:
    raise Unavailable("no token", code="UNAUTHENTICATED", kind="authorize")
