"""What each server does with a Scopeward that is slow, that is not who it should be, or that is old."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import Authority
from demo import Login, OAuthFailure
from old_server import OldServer
from servers import SERVERS, eventually, serving
from service import Service


def scopes(login: Login, client: dict[str, str], scope: str) -> set[str]:
    return set(login.login(client, scope)["scope"].split(" "))


def refuses_for_now(login: Login, client: dict[str, str]) -> None:
    with pytest.raises(OAuthFailure) as failure:
        login.authorize(client, "openid")
    assert failure.value.error == "temporarily_unavailable", failure.value.answer
    assert "127.0.0.1" not in str(failure.value.answer) and "localhost" not in failure.value.answer["error_description"]
    with pytest.raises(OAuthFailure) as failure:
        login.register("openid")
    assert (failure.value.status, failure.value.error) == (503, "server_error"), failure.value.answer


@pytest.mark.parametrize("name", SERVERS)
def test_a_stalled_service_and_a_deadline_of_50_ms(name: str, service: Service) -> None:
    with serving(name, service.target, deadline=0.05) as (_, login):
        client = eventually(lambda: login.register("openid"))
        service.pause()
        refuses_for_now(login, client)
        service.resume()
        assert eventually(lambda: scopes(login, client, "openid offline_access")) == {"openid", "offline_access"}


@pytest.mark.parametrize("name", SERVERS)
def test_a_wrong_certificate(name: str, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "authority"), Authority(tmp_path, "other")
    certificate, key = authority.issue("server", "127.0.0.1")
    arguments = ("--tls-cert-file", str(certificate), "--tls-private-key-file", str(key))
    with Service(tmp_path, arguments=arguments) as service:
        with serving(name, f"https://{service.target}", tls_ca_file=str(authority.file)) as (_, login):
            client = eventually(lambda: login.register("openid"))
            for issuer in (other, authority):
                service.stop()
                issuer.issue("server", "127.0.0.1")
                service.start()
                if issuer is other:
                    refuses_for_now(login, client)
            assert eventually(lambda: scopes(login, client, "openid")) == {"openid"}


@pytest.mark.parametrize("name", SERVERS)
def test_a_service_from_before_some_fields(name: str, shared: Service) -> None:
    missing = ("added", "policy", "decision_id", "reason", "effective_registered_scope", "audience_grants")
    with OldServer(shared.target, *missing) as old, serving(name, old.target) as (_, login):
        client = login.register("openid")
        assert client["scope"] == "openid offline_access"
        assert scopes(login, client, "openid mcp:write") == {"openid", "mcp:write"}
        assert scopes(login, client, "openid offline_access") == {"openid", "offline_access"}
        for scope in ("openid root", "openid profile", "mcp:read"):
            with pytest.raises(OAuthFailure) as failure:
                login.authorize(client, scope)
            assert failure.value.error == "invalid_scope"


@pytest.mark.parametrize("missing, changed", [(["decision"], {}), (["scope"], {}), ([], {"decision": 9})])
@pytest.mark.parametrize("name", SERVERS)
def test_an_answer_that_is_not_understood_grants_nothing(
    name: str, missing: list[str], changed: dict[str, int], shared: Service
) -> None:
    with OldServer(shared.target) as old, serving(name, old.target) as (_, login):
        client = login.register("openid")
        old.take_out(*missing, **changed)
        with pytest.raises(OAuthFailure) as failure:
            login.authorize(client, "openid")
        assert failure.value.error == "server_error", failure.value.answer
        with pytest.raises(OAuthFailure) as failure:
            login.register("openid")
        assert (failure.value.status, failure.value.error) == (500, "server_error"), failure.value.answer
        assert failure.value.retry_after is None
