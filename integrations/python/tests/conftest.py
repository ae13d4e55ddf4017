"""Runs the real `scopeward`: the binary is in `SCOPEWARD_BIN`, else in the target folder, else on the path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from demo import POLICY, Login
from servers import SERVERS, Running, eventually, serving
from service import Service

from scopeward import AsyncClient, Client, _channel

# A busy machine may take seconds for an answer or a connection, and these tests are not about that: what is about a deadline has its own.
for _client in (AsyncClient, Client):
    assert _client.__init__.__kwdefaults__ is not None
    _client.__init__.__kwdefaults__["deadline"] = 30.0
OPTIONS = list(_channel._OPTIONS)
_channel._OPTIONS = [(name, 20_000 if name == "grpc.min_reconnect_backoff_ms" else value) for name, value in OPTIONS]


@pytest.fixture
def real_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections as users have them."""
    monkeypatch.setattr(_channel, "_OPTIONS", OPTIONS)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server for all tests that only ask."""
    with Service(tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A server for one test, which may stop it and edit its policy."""
    with Service(tmp_path) as running:
        yield running


@pytest.fixture(scope="session", params=SERVERS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Service(tmp_path_factory.mktemp(request.param)) as service, serving(request.param, service.target) as (app, login):
        yield Running(request.param, app, service, login)


@pytest.fixture
def server(running: Running) -> Iterator[Running]:
    """The server with its first policy and its Scopeward up, whatever a test did to them."""
    yield running
    running.service.resume()
    running.service.stop()
    running.service.policy_file.write_text(POLICY)
    running.service.start()
    eventually(lambda: running.login.register("openid"))


@pytest.fixture
def login(running: Running) -> Login:
    """For tests that only ask."""
    return running.login
