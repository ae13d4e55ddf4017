"""The audit consumer against the real service: nothing lost, whatever happens to either side."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from service import AUDIENCE, Service, binary

from scopeward import (
    AsyncClient,
    AuditEvent,
    AuditGap,
    AuditStopped,
    AuthorizeQuestion,
    Client,
    Denied,
    FileCursor,
    OAuthClient,
    Position,
    Unavailable,
    _audit,
)


def ask(client: Client, name: str) -> None:
    """Makes an expansion; waits until the client is connected again."""
    tool = OAuthClient(client_name=name, source="dcr")
    for _ in range(200):
        try:
            client.expand_registration_scopes(scope="openid", client=tool, correlation_id=f"login-{name}")
            return
        except Unavailable:
            threading.Event().wait(0.05)
    raise AssertionError("it did not come back")


def names(client: Client, path: Path) -> list[str]:
    """The client names of the expansions from the cursor on."""
    events = client.audit_events(cursor=FileCursor(path), follow=False, kinds=["EXPANSION"])
    return [event.client.client_name for event in events if isinstance(event, AuditEvent) and event.client]


def test_an_event_says_what_was_decided(service: Service) -> None:
    with Client(service.target) as client:
        ask(client, "one")
        with pytest.raises(Denied) as denied:
            client.check_authorize_scopes(scope="root", registered_scope="", audiences=AUDIENCE)
        # Nobody waits for the record of a denial, so it may be written a little later.
        opened, expansion, denial = islice(client.audit_events(), 3)
    assert isinstance(opened, AuditEvent) and opened.kind == "POLICY_CHANGE" and opened.policy_change is not None
    assert isinstance(expansion, AuditEvent) and isinstance(denial, AuditEvent)
    assert expansion.client == OAuthClient(client_name="one", source="dcr")
    assert (expansion.correlation_id, expansion.requested_scope, expansion.registered_scope) == ("login-one", "openid", None)
    assert [(item.scope, item.origin) for item in expansion.added] == [("offline_access", "BASELINE")]
    assert (denial.kind, denial.reason, denial.registered_scope) == ("DENIAL", "FORBIDDEN", "")
    assert denial.decision_id == denied.value.decision_id
    assert denial.prev_hash == expansion.hash
    assert expansion.event_time is not None and expansion.event_time.tzinfo is timezone.utc
    assert [event.as_dict() for event in (opened, expansion, denial)] == service.audit()


def test_it_resumes_after_the_last_event_that_was_handled(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    with Client(service.target) as client:
        ask(client, "one")
        assert names(client, path) == ["one"]
        assert names(client, path) == []
        ask(client, "two")
        assert names(client, path) == ["two"]
    line = ["audit", "tail", "--server", service.target, "--cursor-file", str(path)]
    assert subprocess.run([binary(), *line], check=True, capture_output=True, text=True).stdout == ""


def test_an_event_that_was_not_handled_comes_again(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    with Client(service.target) as client:
        ask(client, "one")
        with pytest.raises(RuntimeError):
            for event in client.audit_events(cursor=FileCursor(path), follow=False, kinds=["EXPANSION"]):
                raise RuntimeError("the consumer crashed")
        assert names(client, path) == ["one"]


def test_following_survives_a_restart_of_the_server(service: Service, tmp_path: Path) -> None:
    with Client(service.target, deadline=5) as client:
        events = client.audit_events(cursor=FileCursor(tmp_path / "cursor"), kinds=["EXPANSION"])
        ask(client, "one")
        assert take(events) == "one"
        service.stop()
        later = threading.Thread(target=lambda: (service.start(), ask(client, "two")))
        later.start()
        assert take(events) == "two"
        later.join()


def take(events: object) -> str:
    event = next(events)  # type: ignore[call-overload]
    assert isinstance(event, AuditEvent) and event.client is not None
    return event.client.client_name


def test_latest_and_a_time_leave_out_what_was_before(service: Service) -> None:
    with Client(service.target) as client:
        ask(client, "one")
        assert list(client.audit_events(start="latest", follow=False)) == []
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        assert list(client.audit_events(start=later, follow=False)) == []
        earlier = datetime.now(timezone.utc) - timedelta(hours=1)
        assert len(list(client.audit_events(start=earlier, follow=False))) == 2
        assert len(list(client.audit_events(audiences="https://other.example.com", follow=False))) == 0


def test_a_gap_is_handed_out(tmp_path: Path) -> None:
    with Service(tmp_path, arguments=("--audit-denials-per-second", "1")) as service, Client(service.target) as client:
        # One by one they would be a burst only on a fast machine: ten are recorded, and one more each second.
        denied = client.batch_check_authorize_scopes([AuthorizeQuestion(scope="root", registered_scope="")] * 100)
        assert all(isinstance(answer, Denied) for answer in denied)
        gap = the_gap(client)
    assert gap.reason == "DENIAL_RATE" and 0 < gap.count == gap.reason_counts["REASON_FORBIDDEN"]
    assert gap.as_dict()["gap"]["reason"] == "DENIAL_RATE"


def the_gap(client: Client) -> AuditGap:
    """Nobody waits for the records of denials."""
    for _ in range(400):
        for event in client.audit_events(follow=False):
            if isinstance(event, AuditGap):
                return event
        threading.Event().wait(0.05)
    raise AssertionError("no gap")


def test_a_cursor_outside_what_is_kept_stops(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    with Client(service.target) as client:
        log_id = next(iter(client.audit_events())).log_id
        for position, code, reason in [
            (Position(log_id, 4_000), "OUT_OF_RANGE", "SEQUENCE_OUT_OF_RANGE"),
            (Position("0192e4a0-0000-7000-8000-000000000000", 1), "INVALID_ARGUMENT", "LOG_ID_FOREIGN"),
        ]:
            FileCursor(path).save(position)
            with pytest.raises(AuditStopped) as stopped:
                list(client.audit_events(cursor=FileCursor(path)))
            assert (stopped.value.code, stopped.value.reason) == (code, reason)
            assert json.loads(path.read_text()) == {"log_id": position.log_id, "sequence": position.sequence}
        path.write_text("{")
        with pytest.raises(ValueError, match="no cursor"):
            list(client.audit_events(cursor=FileCursor(path)))


def test_without_following_an_outage_is_said(service: Service) -> None:
    with Client(service.target) as client:
        service.stop()
        with pytest.raises(Unavailable):
            list(client.audit_events(follow=False))


def test_several_addresses_have_several_logs() -> None:
    with Client(["127.0.0.1:1", "127.0.0.1:2"]) as client, pytest.raises(ValueError, match="log of its own"):
        client.audit_events()


def test_a_silent_stream_is_dead(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = counted_streams(monkeypatch, "read_blocking")
    monkeypatch.setattr(_audit, "SILENCE_SECONDS", 1.0)
    with Client(service.target) as client, ThreadPoolExecutor() as threads:
        ask(client, "one")
        events = client.audit_events(kinds=["EXPANSION"])
        assert take(events) == "one"
        following = threads.submit(take, events)
        service.pause()
        opened = len(streams)
        until(lambda: len(streams) > opened)
        monkeypatch.setattr(_audit, "SILENCE_SECONDS", 30.0)
        service.resume()
        ask(client, "two")
        assert following.result() == "two"


async def test_asyncio_leaves_a_silent_stream_too(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = counted_streams(monkeypatch, "read_async")
    monkeypatch.setattr(_audit, "SILENCE_SECONDS", 1.0)
    async with AsyncClient(service.target) as client:
        await client.expand_registration_scopes(scope="openid")
        events = client.audit_events(kinds=["EXPANSION"])
        assert isinstance(await anext(events), AuditEvent)
        following = asyncio.ensure_future(anext(events))
        service.pause()
        opened = len(streams)
        await asyncio.to_thread(until, lambda: len(streams) > opened)
        monkeypatch.setattr(_audit, "SILENCE_SECONDS", 30.0)
        service.resume()
        await client.expand_registration_scopes(scope="profile")
        event = await following
        assert isinstance(event, AuditEvent) and event.requested_scope == "profile"


def counted_streams(monkeypatch: pytest.MonkeyPatch, name: str) -> list[object]:
    """Those that the reader opens from now on."""
    read: Callable[..., Any] = getattr(_audit, name)
    streams: list[object] = []

    def counting(reader: object, connect: Callable[[], object]) -> Any:
        def counted() -> object:
            streams.append(connect())
            return streams[-1]

        return read(reader, counted)

    monkeypatch.setattr(_audit, name, counting)
    return streams


def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it did not come")


async def test_asyncio_resumes_too(service: Service, tmp_path: Path) -> None:
    cursor = FileCursor(tmp_path / "cursor")
    async with AsyncClient(service.target) as client:
        await client.expand_registration_scopes(scope="openid")
        assert len([event async for event in client.audit_events(cursor=cursor, follow=False)]) == 2
        assert [event async for event in client.audit_events(cursor=cursor, follow=False)] == []
        await client.expand_registration_scopes(scope="profile")
        async for event in client.audit_events(cursor=cursor):
            assert isinstance(event, AuditEvent) and event.requested_scope == "profile"
            break
        service.stop()
        with pytest.raises(Unavailable):
            [event async for event in client.audit_events(cursor=cursor, follow=False)]


def test_a_denial_at_the_token_endpoint_says_what_was_presented(service: Service) -> None:
    with Client(service.target) as client:
        with pytest.raises(Denied):
            client.check_token_scopes(grant="refresh", scope="profile", granted_scope="openid", correlation_id="login-one")
        with pytest.raises(Denied):
            client.check_authorize_scopes(scope="root", registered_scope="")
        token, authorize = (event for event in islice(client.audit_events(kinds=["DENIAL"]), 2))
    assert isinstance(token, AuditEvent) and isinstance(authorize, AuditEvent)
    assert (token.grant, token.granted_scope, token.reason, token.correlation_id) == ("refresh", "openid", "EXCEEDS_GRANT", "login-one")
    assert (authorize.grant, authorize.granted_scope) == (None, None)
