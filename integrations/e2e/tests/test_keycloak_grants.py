"""Keycloak behind `scopeward gateway`: a client with a metadata document, which never registers, and backchannel authentication (CIBA).

Ory Hydra has neither.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import queue
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import USER
from cases import DOCUMENT_URL
from demo import POLICY
from keycloak_server import documents
from login import REDIRECT_URI, Failure, call, shown
from test_gateway import Scene
from upstreams import Keycloak, free_port
from world import DOCUMENT

CHANNEL = "--spi-ciba-auth-channel--ciba-http-auth-channel--http-authentication-channel-uri"
CIBA = "urn:openid:params:grant-type:ciba"
# What a client with a document holds is said for it alone: clients from before have nothing here.
DOCUMENTS_POLICY = POLICY.replace("stepUpScopes:", "unknownRegistration: {cimd: supported, static: none}\n      stepUpScopes:")


class Phone:
    """Where Keycloak asks the user."""

    def __init__(self) -> None:
        asked: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

        class Channel(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked.put((self.headers["Authorization"], body))
                self.send_response(201)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._asked = asked
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Channel)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def agree(self, keycloak: Keycloak) -> dict[str, Any]:
        """Agrees to what is asked next, and returns it."""
        authorization, asked = self._asked.get(timeout=60)
        url = f"{keycloak.url}{keycloak.paths['issuer']}/protocol/openid-connect/ext/ciba/auth/callback"
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps({"status": "SUCCEED"}).encode(), headers)
        with urllib.request.urlopen(request, timeout=60):
            return asked

    def was_not_asked(self) -> bool:
        return self._asked.empty()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def phone() -> Iterator[Phone]:
    phone = Phone()
    yield phone
    phone.stop()


@pytest.fixture(scope="module")
def keycloak(phone: Phone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    if shutil.which("mvn") is None:
        pytest.skip("cannot be had here")
    folder = tmp_path_factory.mktemp("keycloak")
    with contextlib.ExitStack() as stack:
        options = stack.enter_context(documents(folder, json.dumps({**DOCUMENT, "redirect_uris": [REDIRECT_URI]})))
        host = DOCUMENT_URL.split("/")[2]
        base = f"http://127.0.0.1:{free_port()}"
        running = Keycloak(folder, base, f"{CHANNEL}={phone.url}", *options, document_host=host)
        stack.callback(running.stop)
        running.start()
        running.offer("openid", "mcp:read")
        yield running


@pytest.fixture
def scene(keycloak: Keycloak, tmp_path: Path) -> Scene:
    return Scene(keycloak, tmp_path)


def test_a_client_with_a_document_is_decided_as_one(scene: Scene) -> None:
    (scene.policies / "mcp.yaml").write_text(DOCUMENTS_POLICY)
    with scene.gateway(has_admin=False):
        login = scene.login()
        for scope in ("openid mcp:read", "openid offline_access"):
            tokens = login.login(DOCUMENT_URL, scope)
            assert set(shown(tokens).split()) >= set(scope.split()), tokens
        with pytest.raises(Failure, match="invalid_scope"):
            login.login(DOCUMENT_URL, "openid root")
    denial = scene.events(DOCUMENT_URL)[-1]
    assert (denial["kind"], denial["client"]["source"]) == ("AUDIT_EVENT_KIND_DENIAL", "CLIENT_SOURCE_CIMD")


def test_a_backchannel_login_gets_what_is_decided(scene: Scene, phone: Phone, keycloak: Keycloak) -> None:
    with scene.gateway(has_admin=False):
        login = scene.login()
        ciba = {
            "grant_types": [CIBA, "refresh_token"],
            "response_types": [],
            "backchannel_token_delivery_mode": "poll",
            "token_endpoint_auth_method": "client_secret_post",
        }
        client = login.register("openid", **ciba)
        assert shown(client) == "offline_access openid"
        credentials = {"client_id": client["client_id"], "client_secret": client["client_secret"]}

        def ask(scope: str | None) -> dict[str, Any]:
            form = {**credentials, "login_hint": USER, **({} if scope is None else {"scope": scope})}
            return call(login.server["backchannel_authentication_endpoint"], form, is_form=True)

        # With the scopes that it holds if it names none, which Keycloak itself would refuse.
        for scope in ("openid offline_access", None):
            begun = ask(scope)
            asked = phone.agree(keycloak)
            assert set(asked["scope"].split()) == {"openid", "offline_access"}
            form = {**credentials, "grant_type": CIBA, "auth_req_id": begun["auth_req_id"]}
            tokens = call(login.server["token_endpoint"], form, is_form=True)
            assert set(shown(tokens).split()) >= {"openid", "offline_access"}, tokens
        for scope in ("openid admin", "openid profile"):
            with pytest.raises(Failure, match="invalid_scope") as refused:
                ask(scope)
            assert refused.value.status == 400
        assert phone.was_not_asked()
