"""The client against the real service: answers, denials, and what a login gets where there is no answer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import threading
from pathlib import Path

import grpc
import pytest
from certificates import Authority
from failing_server import FailingServer
from old_server import OldServer
from service import AUDIENCE, POLICY, Service
from sick_server import SickServer

import scopeward
from scopeward import AsyncClient, AuthorizeQuestion, Client, Denied, OAuthClient, TokenQuestion, Unavailable, _wire
from scopeward._channel import parse_target


def test_a_narrow_registration_gets_the_baseline(shared: Service) -> None:
    with Client(shared.target) as client:
        answer = client.expand_registration_scopes(scope="openid", client=OAuthClient(client_name="Tool"))
    assert answer.scope == "openid offline_access"
    assert [(item.scope, item.origin) for item in answer.added] == [("offline_access", "BASELINE")]
    assert answer.policy.generation == 1 and answer.policy.digest.startswith("sha256:")


@pytest.mark.parametrize("scope", [None, "", "   "])
def test_an_omitted_scope_gets_the_defaults(shared: Service, scope: str | None) -> None:
    with Client(shared.target) as client:
        assert client.expand_registration_scopes(scope=scope).scope == "openid mcp:read offline_access"


def test_an_update_without_scope_keeps_what_is_held(shared: Service) -> None:
    with Client(shared.target) as client:
        answer = client.expand_registration_scopes(previous_scope="profile offline_access")
    assert answer.scope == "profile offline_access"


def test_a_denial_at_registration_is_ready_to_be_sent(shared: Service) -> None:
    with Client(shared.target) as client, pytest.raises(Denied) as denied:
        client.expand_registration_scopes(scope="openid nonsense root")
    assert denied.value.error == "invalid_client_metadata" and denied.value.http_status == 400
    assert denied.value.oauth_error() == {
        "error": "invalid_client_metadata",
        "error_description": denied.value.error_description,
    }
    assert [(item.scope, item.reason) for item in denied.value.refused] == [
        ("nonsense", "UNSUPPORTED"),
        ("root", "FORBIDDEN"),
    ]


def test_authorize_tells_step_up_and_what_is_not_to_be_stored(shared: Service) -> None:
    with Client(shared.target) as client:
        answer = client.check_authorize_scopes(
            scope=" openid mcp:write", registered_scope="openid", audiences=AUDIENCE, correlation_id="login-1"
        )
    assert answer.scope == "openid mcp:write"
    assert [(item.scope, item.origin) for item in answer.added] == [("mcp:write", "STEP_UP")]
    assert answer.effective_registered_scope == "openid mcp:write"
    assert [(grant.audience, grant.scope) for grant in answer.audience_grants] == [(AUDIENCE, "openid mcp:write")]


def test_unset_is_not_empty(shared: Service) -> None:
    with Client(shared.target) as client:
        assert client.check_authorize_scopes(scope="mcp:read").scope == "mcp:read"
        with pytest.raises(Denied) as denied:
            client.check_authorize_scopes(scope="mcp:read", registered_scope="")
    assert (denied.value.error, denied.value.reason) == ("invalid_scope", "UNREGISTERED")


def test_an_unknown_audience_is_an_invalid_target(shared: Service) -> None:
    with Client(shared.target) as client, pytest.raises(Denied) as denied:
        client.check_authorize_scopes(scope="openid", audiences=["https://other.example.com"])
    assert (denied.value.error, denied.value.reason) == ("invalid_target", "AUDIENCE_UNKNOWN")


def test_a_batch_has_answers_denials_and_errors_in_order(shared: Service) -> None:
    checks = [
        AuthorizeQuestion(scope="openid", registered_scope="openid"),
        AuthorizeQuestion(scope="root", registered_scope="root"),
        AuthorizeQuestion(scope="openid", correlation_id="x" * 129),
    ]
    with Client(shared.target) as client:
        granted, denied, failed = client.batch_check_authorize_scopes(checks)
    assert isinstance(granted, scopeward.AuthorizeAnswer) and granted.scope == "openid"
    assert isinstance(denied, Denied) and denied.reason == "FORBIDDEN"
    assert isinstance(failed, Unavailable) and (failed.code, failed.error) == ("INVALID_ARGUMENT", "server_error")


def test_descriptions_and_status(shared: Service) -> None:
    with Client(shared.target) as client:
        (description,) = client.describe_audiences()
        assert description == client.describe_audience(AUDIENCE)
        assert description.advertised_scopes == ("openid", "profile", "offline_access", "mcp:read")
        with pytest.raises(Unavailable) as unknown:
            client.describe_audience("https://other.example.com")
        assert (unknown.value.code, unknown.value.reason) == ("NOT_FOUND", "AUDIENCE_NOT_FOUND")
        status = client.policy_status()
    assert status.active is not None and status.audience_count == 1
    assert {condition.type: condition.status for condition in status.conditions}["PolicyAccepted"] == "True"


def test_256_refused_scopes_are_one_denial(shared: Service) -> None:
    scope = " ".join(f"scope{number}" for number in range(256))
    with Client(shared.target) as client, pytest.raises(Denied) as denied:
        client.check_authorize_scopes(scope=scope, registered_scope="openid")
    assert len(denied.value.refused) == 256
    description = denied.value.error_description
    assert len(description) <= 512 and all(" " <= byte <= "~" and byte not in '"\\' for byte in description)


HOSTILE = [
    'mcp"read',
    "openid\troot",
    "openid\nroot",
    "openid\x00root",
    "ópenid",
    "adm\ud800in",
    "a" * 513,
    "x" * 1_000_000,
    "openid " * 200_000,
    " ".join(f"scope{number}" for number in range(60_000)),
    "</script><script>alert(1)</script>",
]


@pytest.mark.parametrize("scope", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_scopes_are_denied_at_both_moments(shared: Service, scope: str) -> None:
    with Client(shared.target, deadline=10) as client:
        with pytest.raises(Denied) as denied:
            client.expand_registration_scopes(scope=scope)
        assert denied.value.error == "invalid_client_metadata"
        with pytest.raises(Denied) as denied:
            client.check_authorize_scopes(scope=scope, registered_scope="openid")
        assert denied.value.error == "invalid_scope"


def test_too_much_metadata_is_denied_and_odd_metadata_left_out(shared: Service) -> None:
    odd = {"client_name": 7, "redirect_uris": "https://x", "grant_types": {"a": 1}, "software_id": ["x"], "scope": []}
    assert OAuthClient.from_metadata(odd) == OAuthClient(source="dcr")
    with Client(shared.target) as client:
        for metadata in ({"client_name": "n" * 70_000}, {"redirect_uris": ["https://a.example.com/" + "p" * 90] * 9_000}):
            with pytest.raises(Denied) as denied:
                client.expand_registration_scopes(client=OAuthClient.from_metadata(metadata))
            assert denied.value.reason == "CLIENT_TOO_LARGE"
        surrogate = OAuthClient.from_metadata({"client_name": "\ud800"})
        assert client.expand_registration_scopes(scope="openid", client=surrogate).scope == "openid offline_access"


def test_down_and_back(service: Service) -> None:
    with Client(service.target) as client:
        assert client.check_authorize_scopes(scope="openid", registered_scope="openid").scope == "openid"
        service.stop()
        with pytest.raises(Unavailable) as authorize:
            client.check_authorize_scopes(scope="openid", registered_scope="openid")
        assert (authorize.value.code, authorize.value.error) == ("UNAVAILABLE", "temporarily_unavailable")
        with pytest.raises(Unavailable) as registration:
            client.expand_registration_scopes(scope="openid")
        assert (registration.value.error, registration.value.http_status) == ("server_error", 503)
        assert service.target not in registration.value.error_description
        service.start()
        assert wait_for_answer(client) == "openid"


def wait_for_answer(client: Client) -> str:
    """The answer once there is one: the channel comes back within its back-off of a second."""
    for _ in range(200):
        try:
            return client.check_authorize_scopes(scope="openid", registered_scope="openid").scope
        except Unavailable as error:
            assert error.error == "temporarily_unavailable"
            threading.Event().wait(0.02)
    raise AssertionError("it did not come back")


def test_a_stalled_server_ends_with_the_deadline(service: Service) -> None:
    with Client(service.target) as client:
        wait_for_answer(client)
        service.pause()
        with pytest.raises(Unavailable) as error:
            client.check_authorize_scopes(scope="openid", registered_scope="openid", deadline=0.05)
        assert (error.value.code, error.value.error) == ("DEADLINE_EXCEEDED", "temporarily_unavailable")
        service.resume()
        assert wait_for_answer(client) == "openid"


def test_a_server_that_never_answers_a_connection_ends_with_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with Client(f"127.0.0.1:{listener.getsockname()[1]}", deadline=0.05) as client:
            with pytest.raises(Unavailable) as error:
                client.expand_registration_scopes(scope="openid")
    assert (error.value.error, error.value.http_status) == ("server_error", 503)


def test_an_answer_from_before_a_field_is_still_one(shared: Service) -> None:
    with OldServer(shared.target, "effective_registered_scope", "audience_grants") as old, Client(old.target) as client:
        answer = client.check_authorize_scopes(scope="openid mcp:write", registered_scope="openid")
        assert (answer.scope, answer.effective_registered_scope) == ("openid mcp:write", "openid mcp:write")
        with pytest.raises(Denied):
            client.check_authorize_scopes(scope="root", registered_scope="openid")


@pytest.mark.parametrize("missing, changed", [(["decision"], {}), (["scope"], {}), ([], {"decision": 9})])
def test_an_allow_that_is_not_understood_grants_nothing(
    shared: Service, missing: list[str], changed: dict[str, int]
) -> None:
    with OldServer(shared.target, *missing, **changed) as old, Client(old.target) as client:
        with pytest.raises(Unavailable) as error:
            client.check_authorize_scopes(scope="openid", registered_scope="openid")
        assert error.value.error == "server_error"
        with pytest.raises(Unavailable) as error:
            client.expand_registration_scopes(scope="openid")
        assert error.value.error == "server_error"


def test_a_denial_without_its_error_grants_nothing(shared: Service) -> None:
    with OldServer(shared.target, "oauth_error") as old, Client(old.target) as client:
        with pytest.raises(Unavailable) as error:
            client.check_authorize_scopes(scope="root", registered_scope="openid")
        assert error.value.error == "server_error"


def test_a_method_that_the_server_does_not_know_is_a_server_error(shared: Service) -> None:
    with OldServer(shared.target) as old, Client(old.target) as client, pytest.raises(Unavailable) as error:
        client.policy_status()
    assert (error.value.code, error.value.error, error.value.http_status) == ("UNIMPLEMENTED", "server_error", 500)


def test_a_limit_names_its_field(shared: Service) -> None:
    with Client(shared.target) as client, pytest.raises(Unavailable) as error:
        client.check_authorize_scopes(scope="openid", correlation_id="x" * 129)
    assert (error.value.code, error.value.reason) == ("INVALID_ARGUMENT", "LIMIT_EXCEEDED")
    assert error.value.metadata["field"] == "correlation_id"


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_only_unavailable_is_asked_again_and_twice_at_most(code: grpc.StatusCode) -> None:
    if code is grpc.StatusCode.OK:
        pytest.skip("not an error")
    with FailingServer(code) as server:
        with Client(server.target, deadline=5.0) as client, pytest.raises(Unavailable) as error:
            client.check_authorize_scopes(scope="openid")
        asked = len(server.attempts)

        async def ask() -> None:
            async with AsyncClient(server.target, deadline=5.0) as client:
                await client.expand_registration_scopes(scope="openid")

        with pytest.raises(Unavailable):
            asyncio.run(ask())
    assert error.value.code == code.name
    attempts = ["", "1", "2"] if code is grpc.StatusCode.UNAVAILABLE else [""]
    assert server.attempts[:asked] == attempts and server.attempts[asked:] == attempts


def test_several_addresses_leave_out_one_that_is_down(service: Service, tmp_path: Path) -> None:
    with Service(tmp_path / "second") as second, Client([service.target, second.target]) as client:
        for _ in range(100):  # the second connection may come later than the first
            client.expand_registration_scopes(scope="openid")
            if service.has_expansion() and second.has_expansion():
                break
        else:
            raise AssertionError("only one of them was asked")
        service.stop()
        for _ in range(10):
            assert client.expand_registration_scopes(scope="openid").scope == "openid offline_access"


def test_several_addresses_leave_out_one_that_does_not_serve(shared: Service, service: Service) -> None:
    with SickServer(shared.target) as sick, Client([sick.target, service.target]) as client:

        def asks_both() -> bool:
            before = sick.calls
            for _ in range(8):
                client.expand_registration_scopes(scope="openid")
            return sick.calls > before

        for _ in range(100):
            if asks_both():
                break
        else:
            raise AssertionError("only one of them was asked")
        sick.become_sick()
        for _ in range(100):
            if not asks_both():
                break
        else:
            raise AssertionError("it is asked although it does not serve")
        assert not asks_both()


def test_a_connection_may_take_a_while(shared: Service, real_connections: None) -> None:
    """As over TLS to another continent, or on a machine that is busy."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        host, _, port = shared.target.rpartition(":")
        with contextlib.suppress(OSError):
            while True:
                caller, _ = listener.accept()
                threading.Event().wait(0.4)
                server = socket.create_connection((host, int(port)))
                for pair in ((caller, server), (server, caller)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with listener, Client(f"127.0.0.1:{listener.getsockname()[1]}") as client:
        assert client.expand_registration_scopes(scope="openid").scope == "openid offline_access"


def test_unix_socket(tmp_path: Path) -> None:
    with Service(tmp_path, listen=f"unix:{tmp_path}/s") as service, Client(f"unix:{tmp_path}/s") as client:
        assert service.target.startswith("unix:")
        assert client.expand_registration_scopes(scope="openid").scope == "openid offline_access"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def tls(tmp_path: Path, authority: Authority, *more: str) -> Service:
    certificate, key = authority.issue("server", "127.0.0.1", "scopeward.internal")
    arguments = ("--tls-cert-file", str(certificate), "--tls-private-key-file", str(key), *more)
    return Service(tmp_path, arguments=arguments)


def test_tls_and_a_wrong_certificate(tmp_path: Path, authority: Authority) -> None:
    other = Authority(tmp_path, "other")
    with tls(tmp_path, authority) as service:
        with Client(f"https://{service.target}", tls_ca_file=authority.file) as client:
            assert client.expand_registration_scopes(scope="openid").scope == "openid offline_access"
        name = "scopeward.internal"
        with Client(f"https://{service.target}", tls_ca_file=authority.file, server_name=name) as client:
            assert client.expand_registration_scopes(scope="openid").scope == "openid offline_access"
        for arguments in (
            {"tls_ca_file": other.file},
            {"tls_ca_file": authority.file, "server_name": "other.internal"},
            {},
        ):
            with Client(f"https://{service.target}", **arguments) as client, pytest.raises(Unavailable) as error:  # type: ignore[arg-type]
                client.check_authorize_scopes(scope="openid", registered_scope="openid")
            assert error.value.error == "temporarily_unavailable"
        with Client(f"https://{service.target}", tls_ca_file=tmp_path / "none.pem") as client:
            with pytest.raises(Unavailable) as error:
                client.check_authorize_scopes(scope="openid", registered_scope="openid")
        assert error.value.error == "server_error"


def test_a_client_certificate_that_was_replaced_is_read_again(tmp_path: Path, authority: Authority) -> None:
    stranger = Authority(tmp_path, "stranger")
    certificate, key = stranger.issue("caller", "caller")
    with tls(tmp_path, authority, "--tls-client-ca-file", str(authority.file)) as service:
        with Client(
            f"https://{service.target}",
            tls_ca_file=authority.file,
            tls_cert_file=certificate,
            tls_private_key_file=key,
        ) as client:
            with pytest.raises(Unavailable):
                client.expand_registration_scopes(scope="openid")
            authority.issue("caller", "caller")
            assert client.expand_registration_scopes(scope="openid").scope == "openid offline_access"


def test_a_token_from_a_file_counts_at_once(tmp_path: Path) -> None:
    token_file, access_file = tmp_path / "token", tmp_path / "access.yaml"
    digest = hashlib.sha256(b"good").hexdigest()
    access_file.write_text(f"callers:\n  - name: tests\n    match: [{{tokenSha256: {digest}}}]\n    may: [decide]\n")
    token_file.write_text("bad\n")
    with Service(tmp_path, arguments=("--access-file", str(access_file))) as service:
        with Client(service.target, token_file=token_file) as client:
            with pytest.raises(Unavailable) as error:
                client.expand_registration_scopes(scope="openid")
            assert (error.value.code, error.value.error) == ("UNAUTHENTICATED", "server_error")
            token_file.write_text("good\n")
            assert client.expand_registration_scopes(scope="openid").scope == "openid offline_access"
            with pytest.raises(Unavailable) as error:
                client.policy_status()
            assert error.value.code == "PERMISSION_DENIED"
            token_file.unlink()
            with pytest.raises(Unavailable) as error:
                client.check_authorize_scopes(scope="openid", registered_scope="openid")
            assert error.value.error == "server_error"


@pytest.mark.parametrize(
    "target",
    ["", "host", "http://host:1/path", "ftp://host:1", "https://u@host:1", "unix:", [], ["a:1", "b:2"], "host:99999"],
)
def test_what_is_no_target_is_refused_at_once(target: str | list[str]) -> None:
    with pytest.raises(ValueError):
        Client(target)


def test_targets_are_what_the_command_line_takes() -> None:
    assert parse_target("127.0.0.1:1").target == "ipv4:127.0.0.1:1"
    assert parse_target("http://[::1]:1").target == "ipv6:[::1]:1"
    assert parse_target("https://host:1").target == "dns:///host:1" and parse_target("https://host:1").is_tls
    assert parse_target("dns:///host:1").target == "dns:///host:1"
    assert parse_target("unix:/run/s").target == "unix:/run/s"
    assert parse_target(["10.0.0.1:1", "10.0.0.2:2"]).target == "ipv4:10.0.0.1:1,10.0.0.2:2"


def test_a_token_does_not_travel_in_plaintext() -> None:
    with pytest.raises(ValueError, match="plaintext"):
        Client("192.0.2.1:1", token="secret")
    Client("127.0.0.1:1", token="secret").close()


def test_a_closed_client_answers_nothing(shared: Service) -> None:
    client = Client(shared.target)
    client.close()
    with pytest.raises(Unavailable):
        client.expand_registration_scopes(scope="openid")


def test_a_client_made_before_a_fork_works_in_each_process(shared: Service) -> None:
    client = Client(shared.target)
    children = []
    for _ in range(2):
        if (child := os.fork()) == 0:
            granted = client.expand_registration_scopes(scope="openid").scope == "openid offline_access"
            os._exit(0 if granted else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


def test_threads_share_a_client(shared: Service) -> None:
    granted: list[str] = []
    with Client(shared.target) as client:
        threads = [
            threading.Thread(target=lambda: granted.append(client.expand_registration_scopes(scope="openid").scope))
            for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert granted == ["openid offline_access"] * 16


def test_asyncio_gives_the_same_answers(shared: Service) -> None:
    client = AsyncClient(shared.target)

    async def ask() -> None:
        answers = await asyncio.gather(*(client.expand_registration_scopes(scope="openid") for _ in range(8)))
        assert {answer.scope for answer in answers} == {"openid offline_access"}
        answer = await client.check_authorize_scopes(scope="openid mcp:write", registered_scope="openid")
        assert answer.effective_registered_scope == "openid mcp:write"
        with pytest.raises(Denied):
            await client.check_authorize_scopes(scope="root", registered_scope="openid")
        assert len(await client.batch_check_authorize_scopes([AuthorizeQuestion(scope="openid")])) == 1
        assert (await client.check_token_scopes(grant="refresh", granted_scope="openid")).scope == "openid"
        with pytest.raises(Denied):
            await client.check_token_scopes(grant="refresh", scope="profile", granted_scope="openid")
        assert len(await client.batch_check_token_scopes([TokenQuestion("refresh", granted_scope="openid")])) == 1
        assert (await client.describe_audience(AUDIENCE)).audience == AUDIENCE
        assert [item.audience async for item in client.describe_audiences()] == [AUDIENCE]
        assert (await client.policy_status()).audience_count == 1
        async for state in client.watch_policy_status():
            assert state.audience_count == 1
            break

    # One client, two loops, as with a framework that runs a loop for each request.
    asyncio.run(ask())
    asyncio.run(ask())


async def test_asyncio_down_and_slow(service: Service) -> None:
    async with AsyncClient(service.target) as client:
        assert (await client.expand_registration_scopes(scope="openid")).scope == "openid offline_access"
        service.pause()
        with pytest.raises(Unavailable) as error:
            await client.check_authorize_scopes(scope="openid", registered_scope="openid", deadline=0.05)
        assert error.value.code == "DEADLINE_EXCEEDED"
        service.resume()
        service.stop()
        with pytest.raises(Unavailable) as error:
            await client.check_authorize_scopes(scope="openid", registered_scope="openid")
        assert error.value.error == "temporarily_unavailable"
    with pytest.raises(Unavailable):
        await client.expand_registration_scopes(scope="openid")


def test_an_edited_policy_decides_the_next_question(service: Service) -> None:
    with Client(service.target) as client:
        registered = client.expand_registration_scopes(scope="profile").scope
        service.write_policy(POLICY.replace("profile, ", ""))
        with pytest.raises(Denied) as denied:
            client.check_authorize_scopes(scope="profile", registered_scope=registered)
        assert denied.value.reason == "UNSUPPORTED"
        assert client.check_authorize_scopes(registered_scope=registered).scope == "offline_access"


def test_a_refresh_gets_what_was_granted_and_no_more(shared: Service) -> None:
    with Client(shared.target) as client:
        answer = client.check_token_scopes(grant="refresh", granted_scope="openid profile", registered_scope="", audiences=AUDIENCE)
        assert answer.scope == "openid profile" and answer.refused == ()
        assert [(grant.audience, grant.scope) for grant in answer.audience_grants] == [(AUDIENCE, "openid profile")]
        assert client.check_token_scopes(grant="refresh", scope=" profile ", granted_scope="openid profile").scope == "profile"
        dropped = client.check_token_scopes(grant="refresh", granted_scope="openid root", scope="openid root")
        assert (dropped.scope, [(item.scope, item.reason) for item in dropped.refused]) == ("openid", [("root", "FORBIDDEN")])
        with pytest.raises(Denied) as denied:
            client.check_token_scopes(grant="refresh", scope="openid mcp:read", granted_scope="openid", registered_scope="mcp:read")
    assert (denied.value.error, denied.value.reason, denied.value.http_status) == ("invalid_scope", "EXCEEDS_GRANT", 400)
    assert [(item.scope, item.reason) for item in denied.value.refused] == [("mcp:read", "EXCEEDS_GRANT")]


def test_each_grant_of_the_token_endpoint(shared: Service) -> None:
    with Client(shared.target) as client:
        assert client.check_token_scopes(grant="client_credentials", registered_scope="openid").scope == "openid offline_access"
        assert client.check_token_scopes(grant="jwt_bearer", registered_scope="openid", scope="openid").scope == "openid"
        assert client.check_token_scopes(grant="jwt_bearer", granted_scope="mcp:read").scope == "mcp:read"
        assert client.check_token_scopes(grant="token_exchange", granted_scope="mcp:read openid", scope="openid").scope == "openid"
        grants: list[scopeward.TokenGrant] = ["refresh", "token_exchange"]
        for grant in grants:
            with pytest.raises(Unavailable) as error:
                client.check_token_scopes(grant=grant, registered_scope="openid")
            assert (error.value.code, error.value.error, error.value.http_status) == ("INVALID_ARGUMENT", "server_error", 500)
            assert error.value.metadata["field"] == "granted_scope"
        with pytest.raises(Denied):
            client.check_token_scopes(grant="refresh", granted_scope="")
        with pytest.raises(Denied) as denied:
            client.check_token_scopes(grant="refresh", granted_scope="openid", audiences="https://other.example.com")
        assert denied.value.error == "invalid_target"


def test_a_batch_of_token_checks_is_in_order(shared: Service) -> None:
    checks = [
        TokenQuestion("refresh", granted_scope="openid"),
        TokenQuestion("refresh", scope="profile", granted_scope="openid"),
        TokenQuestion("refresh", scope="openid"),
    ]
    with Client(shared.target) as client:
        granted, denied, failed = client.batch_check_token_scopes(checks)
        assert client.batch_check_token_scopes([]) == []
    assert isinstance(granted, scopeward.TokenAnswer) and granted.scope == "openid"
    assert isinstance(denied, Denied) and denied.reason == "EXCEEDS_GRANT"
    assert isinstance(failed, Unavailable) and (failed.code, failed.error) == ("INVALID_ARGUMENT", "server_error")


@pytest.mark.parametrize("scope", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_scopes_are_denied_at_the_token_endpoint(shared: Service, scope: str) -> None:
    with Client(shared.target, deadline=10) as client:
        with pytest.raises(Denied) as denied:
            client.check_token_scopes(grant="refresh", scope=scope, granted_scope="profile")
        assert denied.value.error == "invalid_scope"


@pytest.mark.parametrize(
    "changed", [{"scope": "openid profile"}, {"scope": ""}, {"decision": 0}, {"decision": 9}], ids=["wide", "empty", "none", "new"]
)
def test_a_token_answer_that_is_not_understood_grants_nothing(shared: Service, changed: dict[str, object]) -> None:
    with OldServer(shared.target, has_tokens=True, **changed) as old, Client(old.target) as client:
        for asked in ({"scope": "openid", "granted_scope": "openid profile"}, {"granted_scope": "openid"}):
            with pytest.raises(Unavailable) as error:
                client.check_token_scopes(grant="refresh", **asked)  # type: ignore[arg-type]
            assert (error.value.code, error.value.error, error.value.http_status) == ("UNKNOWN", "server_error", 500)


def test_a_server_without_the_question_is_named(shared: Service, caplog: pytest.LogCaptureFixture) -> None:
    _wire._log_once.cache_clear()
    with OldServer(shared.target) as old, Client(old.target) as client:
        for _ in range(2):
            with pytest.raises(Unavailable, match="Scopeward 0.1.0 or newer is needed") as error:
                client.check_token_scopes(grant="refresh", granted_scope="openid")
            assert (error.value.code, error.value.error, error.value.http_status) == ("UNIMPLEMENTED", "server_error", 500)
            assert "0.1.0" not in error.value.error_description
    assert len([record for record in caplog.records if record.name == "scopeward"]) == 1


def test_a_refresh_without_the_service_can_be_tried_again(service: Service) -> None:
    service.stop()
    with Client(service.target, deadline=0.2) as client, pytest.raises(Unavailable) as error:
        client.check_token_scopes(grant="refresh", granted_scope="openid")
    assert (error.value.error, error.value.http_status) == ("temporarily_unavailable", 503)
