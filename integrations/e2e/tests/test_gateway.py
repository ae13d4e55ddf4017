"""`scopeward gateway` before real servers: clients from before it, many logins at once, its sudden end, and a strict client."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo import POLICY
from driver import Driver
from login import REDIRECT_URI, Failure, Login, shown
from service import binary
from upstreams import HERE as SERVERS
from upstreams import UPSTREAMS, Gateway, Hydra, Keycloak, PostgreSQL, free_port

TYPESCRIPT = Path(os.environ.get("E2E_TYPESCRIPT", SERVERS.parent / "clients/typescript"))


class Scene:
    """A server, and the gateways that stand before it one after the other."""

    def __init__(self, upstream: Hydra | Keycloak, folder: Path) -> None:
        self.upstream = upstream
        self.folder = folder
        self.policies = folder / "policies"
        self.policies.mkdir()
        (self.policies / "mcp.yaml").write_text(POLICY)

    @contextlib.contextmanager
    def gateway(self, has_admin: bool = True) -> Iterator[Gateway]:
        admin = self.upstream.admin_arguments() if has_admin else []
        gateway = Gateway(self.folder, self.upstream, self.policies, *admin, is_public=True)
        try:
            gateway.start()
            yield gateway
        finally:
            gateway.stop()

    def login(self) -> Login:
        """A client of the gateway."""
        return Login(self.upstream.issuer)

    def from_before(self, scope: str) -> str:
        """A client that registered at the server itself."""
        login = Login(self.upstream.issuer, self.upstream.url)
        client = login.register(scope)
        assert shown(client) == scope
        return str(client["client_id"])

    def remembered(self, client_id: str) -> dict[str, Any]:
        """What the record of the gateway has."""
        clients = self._lines("gateway", "clients", "list", "--output", "json")
        (client,) = [client for client in clients if client["clientId"] == client_id]
        return client

    def events(self, client_id: str) -> list[dict[str, Any]]:
        """What was recorded of the client. Only while no gateway runs."""
        return [event for event in self._lines("audit", "tail", "--output", "json") if event.get("client", {}).get("clientId") == client_id]

    def _lines(self, *command: str) -> list[dict[str, Any]]:
        line = [binary(), *command, "--state-dir", str(self.folder / "gateway-state")]
        text = subprocess.run(line, check=True, capture_output=True, text=True).stdout
        return [json.loads(line) for line in text.splitlines()]


def registered(record: dict[str, Any]) -> set[str]:
    """Without the default client scope that Keycloak gives to every client."""
    return set(record["registeredScope"].split()) - {"basic"}


@pytest.fixture(scope="module", params=UPSTREAMS)
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hydra | Keycloak]:
    if shutil.which({"hydra": "go", "keycloak": "mvn"}[request.param]) is None:
        pytest.skip("cannot be built here")
    folder = tmp_path_factory.mktemp(request.param)
    with contextlib.ExitStack() as stack:
        issuer = f"http://127.0.0.1:{free_port()}"
        running: Hydra | Keycloak
        if request.param == "hydra":
            dsn = "memory"
            if PostgreSQL.is_installed():
                store = PostgreSQL(folder)
                stack.callback(store.stop)
                store.start()
                dsn = store.dsn
            running = Hydra(folder, issuer, dsn)
        else:
            running = Keycloak(folder, issuer)
        stack.callback(running.stop)
        running.start()
        yield running


@pytest.fixture
def scene(upstream: Hydra | Keycloak, tmp_path: Path) -> Scene:
    return Scene(upstream, tmp_path)


def test_a_client_from_before_gets_the_baseline(scene: Scene) -> None:
    client_id = scene.from_before("openid")
    with scene.gateway(has_admin=False), pytest.raises(Failure, match="invalid_scope"):
        scene.login().login(client_id, "openid offline_access")
    with scene.gateway():
        login = scene.login()
        for _ in range(2):
            tokens = login.login(client_id, "openid offline_access")
            assert shown(tokens) == "offline_access openid"
            assert shown(login.refresh(client_id, tokens)) == "offline_access openid"
        with pytest.raises(Failure, match="invalid_scope"):
            login.login(client_id, "openid profile")
    assert scene.upstream.stored(client_id) == {"openid", "offline_access"}
    client = scene.remembered(client_id)
    assert (registered(client), client["addedScope"]) == ({"openid"}, "offline_access")
    # The last one is a denial.
    *_, first, second, _ = scene.events(client_id)
    for expansion in (first, second):
        assert (expansion["kind"], registered(expansion)) == ("AUDIT_EVENT_KIND_EXPANSION", {"openid"})
        assert [added["scope"] for added in expansion["added"]] == ["offline_access"]


def test_a_step_up_never_becomes_registered(scene: Scene) -> None:
    with scene.gateway():
        login = scene.login()
        client_id = login.register("openid")["client_id"]
        tokens = login.login(client_id, "openid mcp:write")
        assert shown(tokens) == "mcp:write openid"
        assert shown(login.login(client_id, None)) == "offline_access openid"
    assert "mcp:write" in scene.upstream.stored(client_id)
    assert registered(scene.remembered(client_id)) == {"openid", "offline_access"}


def test_fifty_logins_of_one_client_at_once(scene: Scene) -> None:
    if scene.upstream.takes_one_login_at_a_time:
        pytest.skip("needs PostgreSQL")
    client_id = scene.from_before("openid")
    scene.upstream.without_consent(client_id)
    with scene.gateway():
        login = scene.login()

        def one(number: int) -> str:
            wanted = ["openid offline_access", "openid mcp:write", "openid"][number % 3]
            tokens = login.login(client_id, wanted)
            assert set(tokens["scope"].split()) == set(wanted.split())
            return "" if "refresh_token" not in tokens else shown(login.refresh(client_id, tokens))

        with concurrent.futures.ThreadPoolExecutor(50) as at_once:
            refreshed = list(at_once.map(one, range(50)))
    assert refreshed.count("offline_access openid") == 17
    assert scene.upstream.stored(client_id) == {"openid", "offline_access", "mcp:write"}
    client = scene.remembered(client_id)
    assert registered(client) == {"openid"}
    assert set(client["addedScope"].split()) == {"offline_access", "mcp:write"}


def test_a_client_that_got_its_answer_is_known_after_a_kill(scene: Scene) -> None:
    clients = []
    for _ in range(5):
        with scene.gateway() as gateway:
            clients.append(scene.login().register("openid")["client_id"])
            gateway.stop(signal.SIGKILL)
    with scene.gateway():
        login = scene.login()
        for client_id in clients:
            assert shown(login.login(client_id, "openid offline_access")) == "offline_access openid"
            with pytest.raises(Failure, match="invalid_scope"):
                login.login(client_id, "openid profile")
    for client_id in clients:
        for event in scene.events(client_id):
            assert event["client"]["source"] == "CLIENT_SOURCE_DCR"
            assert event["client"]["clientName"] == "Example Tool"
            assert set(event["registeredScope"].split()) == {"openid", "offline_access"}


async def test_openid_client_logs_in(scene: Scene) -> None:
    """A strict one: it compares the issuer of discovery, of the redirect and of the ID token."""
    with scene.gateway():
        async with Driver(["node", str(TYPESCRIPT / "openid-client.mjs")]) as driver:
            asked = {"issuer": scene.upstream.issuer, "redirect_uri": REDIRECT_URI}
            assert await driver.do("register", **asked, scope="openid", expected="openid offline_access") is None
            assert await driver.do("login", scope="openid offline_access", expected="openid offline_access") is None
            assert await driver.do("login", scope="openid", expected="openid") is None
            assert await driver.do("login", scope="openid profile", expected="") == "invalid_scope"
            refused = await driver.do("register", **asked, scope="openid root", expected="")
            assert refused == "invalid_client_metadata"
