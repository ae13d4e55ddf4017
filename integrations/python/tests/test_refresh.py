"""Refresh tokens at each server: what was granted once, under the policy of now."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from demo import Login, OAuthFailure
from old_server import OldServer
from servers import SERVERS, Running, eventually, serving
from service import POLICY, Service

from scopeward import _wire

WITHOUT_PROFILE = POLICY.replace("profile, ", "")


def with_token(rules: str) -> str:
    return POLICY.replace("    authorization:\n", f"    token: {{{rules}}}\n    authorization:\n")


def scopes(answer: dict[str, Any]) -> set[str]:
    return set(answer["scope"].split())


def refused(failure: pytest.ExceptionInfo[OAuthFailure]) -> tuple[int, str | None]:
    assert "127.0.0.1" not in json.dumps(failure.value.answer)
    return failure.value.status, failure.value.error


def test_a_refresh_loses_what_the_policy_withdrew(server: Running) -> None:
    client = server.login.register("openid profile")
    tokens = server.login.login(client, "openid profile")
    server.service.write_policy(WITHOUT_PROFILE)
    tokens = server.login.refresh(client, tokens)
    assert scopes(tokens) == {"openid"}
    server.service.write_policy(POLICY)
    # Some servers keep the grant with the new refresh token, others narrow that as well. None has more than was granted.
    assert {"openid"} <= scopes(server.login.refresh(client, tokens)) <= {"openid", "profile"}


def test_a_refresh_gains_nothing(server: Running) -> None:
    client = server.login.register("openid profile")
    tokens = server.login.login(client, "openid")
    wider = POLICY.replace("baselineClientScopes: [offline_access]", 'baselineClientScopes: [offline_access, "mcp:read", profile]')
    server.service.write_policy(wider.replace("authorization:\n", "authorization:\n      alwaysGrantScopes: [offline_access, profile]\n"))
    assert "profile" in scopes(server.login.login(client, "openid"))
    for _ in range(2):
        tokens = server.login.refresh(client, tokens)
        assert scopes(tokens) == {"openid"}


def test_a_refresh_asks_for_less(running: Running) -> None:
    client = running.login.register("openid profile")
    tokens = running.login.login(client, "openid profile offline_access")
    assert scopes(running.login.refresh(client, tokens, " openid  offline_access ")) == {"openid", "offline_access"}


@pytest.mark.parametrize("scope", ["", "   "])
def test_a_blank_scope_is_omitted(running: Running, scope: str) -> None:
    client = running.login.register("openid")
    tokens = running.login.login(client, "openid offline_access")
    assert scopes(running.login.refresh(client, tokens, scope)) == {"openid", "offline_access"}


@pytest.mark.parametrize("scope", ["openid profile", "admin", "root", "nonsense", 'openid "', "x" * 600])
def test_a_refresh_for_more_is_refused_and_costs_nothing(running: Running, scope: str) -> None:
    client = running.login.register("openid profile")
    tokens = running.login.login(client, "openid")
    with pytest.raises(OAuthFailure) as failure:
        running.login.refresh(client, tokens, scope)
    assert refused(failure) == (400, "invalid_scope")
    assert len(failure.value.answer["error_description"]) <= 512
    assert scopes(running.login.refresh(client, tokens)) == {"openid"}


def test_what_was_granted_and_is_not_supported_any_more_is_dropped(server: Running) -> None:
    client = server.login.register("openid profile")
    tokens = server.login.login(client, "openid profile")
    server.service.write_policy(WITHOUT_PROFILE)
    assert scopes(server.login.refresh(client, tokens, "openid profile")) == {"openid"}


def test_what_exceeds_a_grant_is_dropped_where_the_policy_says_so(server: Running) -> None:
    client = server.login.register("openid profile")
    tokens = server.login.login(client, "openid")
    server.service.write_policy(with_token("exceedingScopes: drop"))
    assert scopes(server.login.refresh(client, tokens, "openid profile")) == {"openid"}


def test_what_is_not_supported_any_more_is_refused_where_the_policy_says_so(server: Running) -> None:
    client = server.login.register("openid profile")
    tokens = server.login.login(client, "openid profile")
    server.service.write_policy(with_token("unsupportedScopes: reject").replace("profile, ", ""))
    with pytest.raises(OAuthFailure) as failure:
        server.login.refresh(client, tokens, "openid profile")
    assert refused(failure) == (400, "invalid_scope") and "profile" in failure.value.answer["error_description"]


def test_a_refresh_of_nothing_that_is_left_is_denied(server: Running) -> None:
    client = server.login.register("profile")
    tokens = server.login.login(client, "profile")
    server.service.write_policy(WITHOUT_PROFILE)
    with pytest.raises(OAuthFailure) as failure:
        server.login.refresh(client, tokens)
    assert refused(failure) == (400, "invalid_scope")
    server.service.write_policy(POLICY)
    assert scopes(server.login.refresh(client, tokens)) == {"profile"}
    events = [event for event in server.service.audit() if event.get("client", {}).get("clientId") == client["client_id"]]
    assert "TOKEN_GRANT_REFRESH" in {event.get("grant") for event in events}


def test_a_refresh_covers_what_its_scope_matches(server: Running) -> None:
    if server.name == "fastmcp_own":
        pytest.skip("its provider compares byte for byte")
    policy = POLICY.replace("    baseline", "    scopeMatching: hierarchic\n    baseline").replace("profile, ", "files, files.read, ")
    server.service.write_policy(policy)
    client = server.login.register("files")
    tokens = server.login.login(client, "files")
    assert scopes(server.login.refresh(client, tokens, "files.read")) == {"files.read"}


def test_down_and_back(server: Running) -> None:
    client = server.login.register("openid")
    tokens = server.login.login(client, "openid offline_access")
    server.service.stop()
    for scope in (None, "openid", "root"):
        with pytest.raises(OAuthFailure) as failure:
            server.login.refresh(client, tokens, scope)
        assert (*refused(failure), failure.value.retry_after) == (503, "temporarily_unavailable", "1")
    server.service.start()
    # The refresh token was not used up.
    assert scopes(eventually(lambda: server.login.refresh(client, tokens))) == {"openid", "offline_access"}


@pytest.fixture(params=SERVERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_service_that_hangs(name: str, service: Service) -> None:
    with serving(name, service.target, deadline=0.3) as (_, login):
        client = eventually(lambda: login.register("openid"))
        tokens = eventually(lambda: login.login(client, "openid"))
        service.pause()
        with pytest.raises(OAuthFailure) as failure:
            login.refresh(client, tokens)
        assert refused(failure) == (503, "temporarily_unavailable")
        service.resume()
        assert scopes(eventually(lambda: login.refresh(client, tokens))) == {"openid"}


def test_a_service_without_the_question(name: str, shared: Service, caplog: pytest.LogCaptureFixture) -> None:
    _wire._log_once.cache_clear()
    with OldServer(shared.target) as old, serving(name, old.target) as (_, login):
        client = login.register("openid")
        tokens = login.login(client, "openid offline_access")
        with caplog.at_level(logging.ERROR, "scopeward"):
            for _ in range(2):
                with pytest.raises(OAuthFailure) as failure:
                    login.refresh(client, tokens)
                assert (*refused(failure), failure.value.retry_after) == (500, "server_error", None)
    told = [record.getMessage() for record in caplog.records if record.name == "scopeward"]
    assert len(told) == 1 and "Scopeward 0.1.0 or newer is needed" in told[0]


def test_an_answer_that_widens_is_none(name: str, shared: Service) -> None:
    with OldServer(shared.target, has_tokens=True) as old, serving(name, old.target) as (_, login):
        client = login.register("openid")
        tokens = login.login(client, "openid")
        old.take_out(scope="openid admin")
        with pytest.raises(OAuthFailure) as failure:
            login.refresh(client, tokens)
        assert (*refused(failure), failure.value.retry_after) == (500, "server_error", None)
        old.take_out()
        assert scopes(login.refresh(client, tokens)) == {"openid"}
