"""What the examples share: Scopeward with a policy, a web server, and a client that logs in as MCP clients do."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html.parser
import http.cookiejar
import json
import os
import re
import secrets
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import wsgiref.simple_server
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLICY = """\
audiences:
  https://mcp.example.com:
    scopesSupported: [openid, profile, offline_access, "mcp:read", "mcp:write", admin, root]
    baselineClientScopes: [offline_access]
    defaultClientScopes: [openid, "mcp:read"]
    privilegedScopes: [admin]
    forbiddenScopes: [root]
    authorization:
      stepUpScopes: ["mcp:write"]
"""
RESOURCE = "https://mcp.example.com"
REDIRECT_URI = "http://127.0.0.1:33418/callback"


@dataclass(frozen=True)
class Example:
    """A server to try."""

    make_app: Callable[[str, str], Any]
    """From the target of Scopeward and its own base URL."""
    is_asgi: bool = True
    register: str = "/register"
    authorize: str = "/authorize"
    token: str = "/token"
    resource: str | None = RESOURCE
    """What its clients send as `resource`."""


class OAuthFailure(Exception):
    """An OAuth error, as the client got it."""

    def __init__(self, status: int, answer: dict[str, Any], retry_after: str | None = None) -> None:
        super().__init__(f"{status} {answer}")
        self.status = status
        self.answer = answer
        self.error = answer.get("error")
        self.retry_after = retry_after


class Login:
    """An OAuth client with a browser."""

    def __init__(self, example: Example, base: str) -> None:
        self.example = example
        self.base = base

    def register(self, scope: str | None = None, **metadata: Any) -> dict[str, Any]:
        body = {
            "client_name": "Example Tool",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            **({} if scope is None else {"scope": scope}),
            **metadata,
        }
        return self.call("POST", self.base + self.example.register, json.dumps(body), "application/json")

    def call(self, method: str, url: str, body: str, kind: str, token: str | None = None) -> dict[str, Any]:
        headers = {"Content-Type": kind} | ({} if token is None else {"Authorization": f"Bearer {token}"})
        request = urllib.request.Request(url, body.encode() if body else None, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            raise OAuthFailure(error.code, json.loads(error.read()), error.headers.get("Retry-After")) from None

    def authorize(self, client: dict[str, Any], scope: str | None = None, **parameters: Any) -> dict[str, str]:
        """Goes through the pages; returns what came back to the redirect URI, and the code verifier."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code",
            "client_id": client["client_id"],
            "redirect_uri": REDIRECT_URI,
            "state": secrets.token_urlsafe(16),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **({} if scope is None else {"scope": scope}),
            **({} if self.example.resource is None else {"resource": self.example.resource}),
            **parameters,
        }
        url = f"{self.base}{self.example.authorize}?{urllib.parse.urlencode(query, doseq=True)}"
        answer = Browser().visit(url)
        if answer.get("state") != query["state"]:
            raise OAuthFailure(302, {**answer, "error": f"state is lost: {answer}"})
        if "error" in answer:
            raise OAuthFailure(302, answer)
        return {**answer, "code_verifier": verifier}

    def token(self, client: dict[str, Any], **parameters: str) -> dict[str, Any]:
        form = {"client_id": client["client_id"], **parameters}
        kind = "application/x-www-form-urlencoded"
        return self.call("POST", self.base + self.example.token, urllib.parse.urlencode(form), kind)

    def login(self, client: dict[str, Any], scope: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Authorizes and redeems the code."""
        answer = self.authorize(client, scope, **parameters)
        return self.token(
            client,
            grant_type="authorization_code",
            code=answer["code"],
            code_verifier=answer["code_verifier"],
            redirect_uri=REDIRECT_URI,
        )

    def refresh(self, client: dict[str, Any], tokens: dict[str, Any], scope: str | None = None) -> dict[str, Any]:
        asked = {} if scope is None else {"scope": scope}
        return self.token(client, grant_type="refresh_token", refresh_token=tokens["refresh_token"], **asked)


class Browser:
    """Follows redirects and submits forms with what they have, until it is sent to the client's redirect URI."""

    def __init__(self) -> None:
        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        jar = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(rfc2965=True))
        self._opener = urllib.request.build_opener(Stay, urllib.request.HTTPCookieProcessor(jar))

    def visit(self, url: str) -> dict[str, str]:
        body: bytes | None = None
        for _ in range(10):
            request = urllib.request.Request(url, body, {"Accept": "text/html", "Origin": _origin(url), "Referer": url})
            try:
                with self._opener.open(request, timeout=60) as response:
                    page = response.read().decode()
            except urllib.error.HTTPError as error:
                location = error.headers.get("Location")
                if location is None:
                    raise OAuthFailure(error.code, {"error": "page", "page": error.read().decode()[:2000]}) from None
                url, body = urllib.parse.urljoin(url, location), None
                if url.startswith(REDIRECT_URI):
                    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
                continue
            form = _Form()
            form.feed(page)
            if not form.fields:
                raise OAuthFailure(200, {"error": "page", "page": page[:2000]})
            url, body = urllib.parse.urljoin(url, form.action or url), urllib.parse.urlencode(form.fields).encode()
        raise OAuthFailure(200, {"error": "too many pages"})


def _origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class _Form(html.parser.HTMLParser):
    """The hidden fields of a form, and its button that says yes."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        members = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = members.get("action", "")
        name, value = members.get("name", ""), members.get("value", "")
        is_yes = value.lower() in ("authorize", "approve", "allow", "yes")
        if name and ((tag == "input" and members.get("type") == "hidden") or (tag in ("input", "button") and is_yes)):
            self.fields.append((name, value))


@contextlib.contextmanager
def served(example: Example, target: str) -> Iterator[str]:
    """Runs the server on a free port; yields its base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    base = f"http://localhost:{port}"
    app = example.make_app(target, base)
    if example.is_asgi:
        import uvicorn

        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started and thread.is_alive():
            threading.Event().wait(0.01)
        try:
            yield base
        finally:
            server.should_exit = True
            thread.join()
        return
    listener.close()

    class Threading(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
        daemon_threads = True

    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with wsgiref.simple_server.make_server("127.0.0.1", port, app, Threading, Quiet) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            yield base
        finally:
            web.shutdown()
            thread.join()


@contextlib.contextmanager
def scopeward() -> Iterator[str]:
    """Runs Scopeward with the policy above; yields its address."""
    program = os.environ.get("SCOPEWARD_BIN") or shutil.which("scopeward") or str(Path(__file__).resolve().parents[3] / "target/debug/scopeward")
    with tempfile.TemporaryDirectory() as folder:
        policies = Path(folder, "policies")
        policies.mkdir()
        (policies / "mcp.yaml").write_text(POLICY)
        command = [program, "serve", "--policies", str(policies), "--state-dir", f"{folder}/state"]
        command += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        try:
            ready = re.search(r"grpc=(\S+)", process.stdout.readline())
            assert ready, "scopeward did not start"
            yield ready[1]
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


def main(example: Example) -> None:
    """One login after another, step by step."""
    with scopeward() as target, served(example, target) as base:
        print(f"Scopeward on {target}, the authorization server on {base}")
        login = Login(example, base)
        client = login.register("openid")
        print(f"1. registers with `openid`                    -> holds `{client['scope']}`")
        tokens = login.login(client, "openid offline_access")
        print(f"2. asks for `openid offline_access`           -> gets `{tokens.get('scope')}`")
        tokens = login.refresh(client, tokens)
        print(f"3. refreshes                                  -> gets `{tokens.get('scope')}`")
        tokens = login.login(client, "openid mcp:write")
        print(f"4. steps up with the same client: `mcp:write` -> gets `{tokens.get('scope')}`")
        for number, scope in ((5, "openid root"), (6, "openid profile")):
            try:
                login.login(client, scope)
            except OAuthFailure as failure:
                description = failure.answer.get("error_description")
                print(f"{number}. asks for `{scope}`".ljust(46) + f"-> {failure.error}: {description}")
        tokens = login.login(login.register())
        print(f"7. registers and asks without scope           -> gets `{tokens.get('scope')}`")
