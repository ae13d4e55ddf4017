"""Each server, over HTTP, with what real clients send."""

from __future__ import annotations

import json
from typing import Any

import demo
import pytest
from demo import POLICY, Login, OAuthFailure
from servers import Running, eventually

# These show a consent page, with a GET and a POST.
WITH_CONSENT = ["authlib_flask", "authlib_starlette", "django_toolkit"]


def scopes(answer: dict[str, Any]) -> set[str]:
    return set(answer["scope"].split(" "))


def refused(failure: pytest.ExceptionInfo[OAuthFailure]) -> str:
    assert failure.value.error, failure.value.answer
    return str(failure.value.error)


def test_registers_narrow_and_asks_wide(login: Login) -> None:
    client = login.register("openid")
    assert client["scope"] == "openid offline_access"
    tokens = login.login(client, "openid offline_access")
    assert scopes(tokens) == {"openid", "offline_access"}
    assert scopes(login.refresh(client, tokens)) == {"openid", "offline_access"}


@pytest.mark.parametrize("scope", [None, "", "   "])
def test_scope_is_absent_at_both_endpoints(login: Login, scope: str | None) -> None:
    client = login.register(scope)
    assert scopes(client) == {"openid", "mcp:read", "offline_access"}
    assert scopes(login.login(client, scope)) == {"openid", "mcp:read", "offline_access"}


def test_blanks_around_a_scope_are_none(login: Login) -> None:
    client = login.register(" openid  ")
    assert client["scope"] == "openid offline_access"
    assert scopes(login.login(client, " offline_access")) == {"offline_access"}


def test_step_up_with_the_same_client_does_not_stick(running: Running) -> None:
    login, before = running.login, running.last()
    client = login.register("openid")
    for _ in range(2):
        tokens = login.login(client, "openid mcp:write")
        assert scopes(tokens) == {"openid", "mcp:write"}
        assert scopes(login.refresh(client, tokens)) == {"openid", "mcp:write"}
    assert scopes(login.login(client)) == {"openid", "offline_access"}
    steps = [event for event in running.expansions(before) if event["requestedScope"] == "openid mcp:write"]
    assert len(steps) >= 2
    assert {event["registeredScope"] for event in steps} == {"openid offline_access"}
    assert {added["origin"] for event in steps for added in event["added"]} == {"ORIGIN_STEP_UP"}


def test_over_asks_everything_that_is_advertised(server: Running) -> None:
    login, everything = server.login, "openid profile offline_access mcp:read"
    client = login.register("openid")
    with pytest.raises(OAuthFailure) as failure:
        login.authorize(client, everything)
    assert refused(failure) == "invalid_scope" and "profile" in failure.value.answer["error_description"]
    dropping = POLICY.replace("authorization:\n", "authorization:\n      unregisteredScopes: drop\n")
    server.service.write_policy(dropping)
    tokens = login.login(client, everything)
    assert scopes(tokens) == {"openid", "offline_access"}
    assert scopes(login.refresh(client, tokens)) == {"openid", "offline_access"}


def test_asks_only_what_is_forbidden(login: Login) -> None:
    with pytest.raises(OAuthFailure) as failure:
        login.register("root")
    assert (failure.value.status, refused(failure)) == (400, "invalid_client_metadata")
    assert "root" in failure.value.answer["error_description"]
    with pytest.raises(OAuthFailure) as failure:
        login.authorize(login.register("openid"), "root")
    assert refused(failure) == "invalid_scope"


def test_what_is_privileged_must_be_registered(login: Login) -> None:
    assert scopes(login.login(login.register("openid admin"), "admin")) == {"admin"}
    with pytest.raises(OAuthFailure) as failure:
        login.authorize(login.register("openid"), "openid admin")
    assert refused(failure) == "invalid_scope"


HOSTILE = ['mcp"read', "openid\troot", "ópenid", "a" * 600, " ".join(f"scope{number}" for number in range(256))]


@pytest.mark.parametrize("scope", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_scopes_are_refused(login: Login, scope: str) -> None:
    with pytest.raises(OAuthFailure) as failure:
        login.register(scope)
    assert (failure.value.status, refused(failure)) == (400, "invalid_client_metadata")
    assert len(failure.value.answer["error_description"]) <= 512
    with pytest.raises(OAuthFailure) as failure:
        login.authorize(login.register("openid"), scope)
    assert refused(failure) == "invalid_scope" and len(failure.value.answer["error_description"]) <= 512


@pytest.mark.parametrize("scope", ["\ud800", ["openid"], {"openid": True}, 7], ids=["surrogate", "list", "object", "number"])
def test_a_scope_that_is_no_text_registers_nothing(login: Login, scope: Any) -> None:
    with pytest.raises(OAuthFailure) as failure:
        login.register(scope)
    assert (failure.value.status, refused(failure)) == (400, "invalid_client_metadata")


def test_parameters_of_other_endpoints_open_nothing(login: Login) -> None:
    client = login.register("openid")
    for parameters in ({"grant_type": "client_credentials"}, {"grant_type": "refresh_token"}, {"user": "x"}, {"scopes": "root"}):
        with pytest.raises(OAuthFailure):
            login.authorize(client, "openid root", **parameters)


def test_an_unknown_resource_is_an_invalid_target(login: Login) -> None:
    client = login.register("openid")
    with pytest.raises(OAuthFailure) as failure:
        login.authorize(client, "openid", resource="https://other.example.com")
    assert refused(failure) == "invalid_target"


def test_down_and_back(server: Running) -> None:
    login = server.login
    client = login.register("openid")
    server.service.stop()
    with pytest.raises(OAuthFailure) as failure:
        login.register("openid")
    assert (failure.value.status, refused(failure), failure.value.retry_after) == (503, "server_error", "1")
    for scope in ("openid offline_access", None, "root"):
        with pytest.raises(OAuthFailure) as failure:
            login.authorize(client, scope)
        assert refused(failure) == "temporarily_unavailable"
        assert "127.0.0.1" not in json.dumps(failure.value.answer)
    server.service.start()
    assert scopes(eventually(lambda: login.login(client, "openid offline_access"))) == {"openid", "offline_access"}


def test_the_policy_is_edited_between_registration_and_authorize(server: Running) -> None:
    client = server.login.register("openid profile")
    server.service.write_policy(POLICY.replace("profile, ", ""))
    with pytest.raises(OAuthFailure) as failure:
        server.login.authorize(client, "openid profile")
    assert refused(failure) == "invalid_scope"
    assert scopes(server.login.login(client)) == {"openid", "offline_access"}


def test_a_login_has_one_correlation_id(running: Running) -> None:
    login, before = running.login, running.last()
    client = login.register("openid")
    after = running.last()
    assert after > before
    login.login(client, "mcp:write")
    first = [event["correlationId"] for event in running.expansions(after)]
    login.login(client, "mcp:write")
    both = [event["correlationId"] for event in running.expansions(after)]
    assert len(first) == (2 if running.name in WITH_CONSENT else 1)
    assert len(set(first)) == 1 and len(set(both)) == 2 and all(both)


def test_the_client_is_told_as_it_registered(running: Running) -> None:
    before = running.last()
    client = running.login.register("openid", software_id="tool-1")
    running.login.login(client, "mcp:write")
    registration, *authorize = running.expansions(before)
    for event in (registration, *authorize):
        told = event["client"]
        assert told["clientName"] == "Example Tool" and told["source"] == "CLIENT_SOURCE_DCR"
        assert told["redirectUris"] == [demo.REDIRECT_URI]
        assert told["grantTypes"] == ["authorization_code", "refresh_token"]
    assert {event["client"]["clientId"] for event in authorize} == {client["client_id"]}


def test_an_update_without_scope_keeps_what_is_held(running: Running) -> None:
    if running.name not in WITH_CONSENT:
        pytest.skip("the server has no RFC 7592")
    login = running.login
    client = login.register("openid profile")
    default = f"{login.base}{login.example.register}/{client['client_id']}"
    url, token = client.get("registration_client_uri", default), client.get("registration_access_token")
    body = {name: client[name] for name in ("client_id", "redirect_uris", "token_endpoint_auth_method")}

    def put(**changed: str) -> dict[str, Any]:
        grants = {"grant_types": ["authorization_code", "refresh_token"]}
        return login.call("PUT", url, json.dumps({**body, **grants, **changed}), "application/json", put.token)  # type: ignore[attr-defined]

    put.token = token  # type: ignore[attr-defined]
    updated = put()
    put.token = updated.get("registration_access_token", token)  # type: ignore[attr-defined]
    assert scopes(updated) == {"openid", "profile", "offline_access"}
    updated = put(scope="openid")
    put.token = updated.get("registration_access_token", token)  # type: ignore[attr-defined]
    assert scopes(updated) == {"openid", "offline_access"}
    with pytest.raises(OAuthFailure) as failure:
        put(scope="openid root")
    assert (failure.value.status, refused(failure)) == (400, "invalid_client_metadata")
    assert scopes(login.call("GET", url, "", "application/json", put.token)) == {"openid", "offline_access"}  # type: ignore[attr-defined]


def test_django_applications_that_did_not_register(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    if running.name != "django_toolkit":
        pytest.skip("other servers have tests of their own for that")
    from django.db import connection
    from oauth2_provider.models import get_application_model
    from oauth2_provider.settings import oauth2_settings

    document_url = "https://app.example.com/client.json"

    class Fetcher:
        def fetch(self, client_id: str) -> tuple[dict[str, Any], int]:
            return {"client_id": client_id, "client_name": "App", "redirect_uris": [demo.REDIRECT_URI], "scope": "admin"}, 600

    monkeypatch.setattr(oauth2_settings, "CIMD_ENABLED", True)
    monkeypatch.setattr(oauth2_settings, "CIMD_METADATA_FETCHER", Fetcher)
    get_application_model().objects.create(
        client_id="by-operator",
        client_type="public",
        authorization_grant_type="authorization-code",
        redirect_uris=demo.REDIRECT_URI,
    )
    connection.close()
    for client_id, source in ((document_url, "CLIENT_SOURCE_CIMD"), ("by-operator", "CLIENT_SOURCE_STATIC")):
        client = {"client_id": client_id}
        assert scopes(running.login.login(client, "openid mcp:read")) == {"openid", "mcp:read"}
        assert scopes(running.login.login(client, "mcp:write")) == {"mcp:write"}
        with pytest.raises(OAuthFailure) as failure:
            running.login.authorize(client, "admin")
        assert refused(failure) == "invalid_scope"
        told = [event["client"] for event in running.expansions() if event["client"].get("clientId") == client_id]
        assert {client["source"] for client in told} == {source}
