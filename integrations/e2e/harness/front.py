"""What a client talks to: one origin with a protected MCP resource, and behind it the authorization server.

Every request of a client passes here, so what it sends, and what it gets, is recorded without touching it. The resource is ours; discovery
documents say what a case wants; all else is passed on as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.cookiejar
import json
import socket
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

# The tools of the resource, with the scope that each needs.
TOOLS: dict[str, str | None] = {"ping": None, "read": "mcp:read", "write": "mcp:write"}
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "accept-encoding", "date", "server"}


@dataclass
class Paths:
    """Where the endpoints of the authorization server are."""

    register: str
    authorize: str
    token: str
    issuer: str = ""
    """The path of its issuer."""


@dataclass
class Stimulus:
    """What the resource and the discovery documents say."""

    challenge: str | None = None
    """`scope` in the 401; `None` leaves the parameter out."""
    advertised: list[str] | None = None
    """`scopes_supported` of the resource and of the server; `None` leaves the member out."""
    has_refresh_token: bool = True
    """Otherwise the token response loses it, as from a server that issues none."""
    expires_in: int | None = None
    """How long the first access token of a login lives, as its response says; `None` leaves what the server says."""
    has_metadata_documents: bool = False


@dataclass
class Registration:
    scope: Any
    has_scope: bool
    status: int
    answer: dict[str, Any]


@dataclass
class Authorization:
    client_id: str
    scope: str | None
    resource: str | None
    redirect_uri: str
    state: str | None
    answer: dict[str, str] = field(default_factory=dict)
    """What came back to the redirect URI."""
    granted: str | None = None
    """The scope of the token response."""


@dataclass
class Record:
    """What passed during one case, in order."""

    registrations: list[Registration] = field(default_factory=list)
    authorizations: list[Authorization] = field(default_factory=list)
    refreshes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Where the server's answer was not that of the policy."""


Hook = Callable[[], Awaitable[None]]


class Front:
    """Serves on loopback until it is closed."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://localhost:{self._socket.getsockname()[1]}"
        self.resource = f"{self.base}/mcp"
        self.upstream = ""
        self.paths = Paths("/register", "/authorize", "/token")
        self._issuer = self.base
        self.stimulus = Stimulus()
        self.record = Record()
        self.after_registration: Hook | None = None
        self.after_login: Hook | None = None
        self.judge_registration: Callable[[Registration], Awaitable[str | None]] | None = None
        self.expect_authorization: Callable[[Authorization], Awaitable[Callable[[Authorization], str | None]]] | None = None
        self._seeing = asyncio.Lock()
        self._verdicts: dict[int, Callable[[Authorization], str | None]] = {}
        self._tokens: dict[str, frozenset[str]] = {}
        # A connection that is kept may be closed by the server while a request is on its way.
        limits = httpx.Limits(max_keepalive_connections=0)
        # Cookies are those of whom a request comes from.
        none = http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self._http = httpx.AsyncClient(timeout=60, follow_redirects=False, trust_env=False, limits=limits, cookies=none)
        methods = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"]
        app = Starlette(
            routes=[
                Route("/mcp", self._mcp, methods=["GET", "POST", "DELETE"]),
                Route("/.well-known/oauth-protected-resource", self._resource_metadata),
                Route("/.well-known/oauth-protected-resource/mcp", self._resource_metadata),
                Route("/.well-known/oauth-authorization-server{rest:path}", self._server_metadata),
                Route("/.well-known/openid-configuration{rest:path}", self._server_metadata),
                Route("/{issuer:path}/.well-known/openid-configuration", self._server_metadata),
                Route("/{path:path}", self._pass_on, methods=methods),
            ]
        )
        config = uvicorn.Config(
            app, log_level="error", lifespan="off", timeout_graceful_shutdown=1, timeout_keep_alive=3600
        )
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Front:
        self._task = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started:
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        assert self._task is not None
        await self._task
        await self._http.aclose()

    def begin(self, stimulus: Stimulus) -> Record:
        """A new case."""
        self.stimulus, self.record = stimulus, Record()
        self.after_registration = self.after_login = None
        self._verdicts.clear()
        return self.record

    def expire_tokens(self) -> None:
        """The resource takes none of the access tokens any more."""
        self._tokens.clear()

    # The resource: as much of MCP as a client needs in order to connect and to call a tool.

    async def _mcp(self, request: Request) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        scopes = self._tokens.get(token)
        if scopes is None:
            return self._challenge(401, {"error": "invalid_token"} if token else {}, self.stimulus.challenge)
        if request.method != "POST":
            return Response(status_code=405)
        message = await request.json()
        if "id" not in message:
            return Response(status_code=202)
        if message["method"] == "tools/call":
            needed = TOOLS[message["params"]["name"]]
            if needed is not None and needed not in scopes:
                return self._challenge(403, {"error": "insufficient_scope"}, needed)
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], **_answer(message)})

    def _challenge(self, status: int, members: dict[str, str], scope: str | None) -> Response:
        members = members | {"resource_metadata": f"{self.base}/.well-known/oauth-protected-resource/mcp"}
        if scope is not None:
            members["scope"] = scope
        text = ", ".join(f'{name}="{value}"' for name, value in members.items())
        return JSONResponse({"error": members.get("error", "unauthorized")}, status, {"www-authenticate": f"Bearer {text}"})

    # Discovery.

    async def _resource_metadata(self, request: Request) -> Response:
        # Clients compare it with the issuer that the server's own document names, byte for byte (RFC 8414 section 3.3).
        with contextlib.suppress(httpx.ConnectError):
            self._issuer = (await self._server_document("/.well-known/oauth-authorization-server" + self.paths.issuer))["issuer"]
        document: dict[str, Any] = {"resource": self.resource, "authorization_servers": [self._issuer]}
        if self.stimulus.advertised is not None:
            document["scopes_supported"] = self.stimulus.advertised
        return JSONResponse(document)

    async def _server_metadata(self, request: Request) -> Response:
        try:
            document = await self._server_document(request.url.path)
        except httpx.ConnectError:
            return Response(status_code=502)
        for name in ("scopes_supported", "client_id_metadata_document_supported"):
            document.pop(name, None)
        if self.stimulus.advertised is not None:
            document["scopes_supported"] = self.stimulus.advertised
        if self.stimulus.has_metadata_documents:
            document["client_id_metadata_document_supported"] = True
        return JSONResponse(document)

    async def _server_document(self, path: str) -> dict[str, Any]:
        """The server's own where it has one."""
        found = await self._http.get(self.upstream + path, headers={"host": urllib.parse.urlsplit(self.base).netloc})
        if found.status_code == 200:
            document: dict[str, Any] = found.json()
            # All of them take public clients, and some do not say so.
            methods = document.get("token_endpoint_auth_methods_supported") or []
            return {**document, "token_endpoint_auth_methods_supported": sorted({*methods, "none"})}
        return {
            "issuer": self.base,
            "authorization_endpoint": self.base + self.paths.authorize,
            "token_endpoint": self.base + self.paths.token,
            "registration_endpoint": self.base + self.paths.register,
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_methods_supported": ["none"],
            "code_challenge_methods_supported": ["S256"],
        }

    # The authorization server.

    async def _pass_on(self, request: Request) -> Response:
        body = await request.body()
        path = request.url.path
        if path == self.paths.authorize and request.method == "GET" and "client_id" in request.query_params:
            await self._see_authorization(dict(request.query_params))
        try:
            answer = await self._http.request(
                request.method,
                self.upstream + path + (f"?{request.url.query}" if request.url.query else ""),
                content=body,
                headers=[(name, value) for name, value in request.headers.items() if name not in _HOP_BY_HOP],
            )
        except httpx.ConnectError:
            answer = httpx.Response(502)  # as from a balancer
        content = answer.content
        if path == self.paths.register and request.method == "POST":
            await self._see_registration(body, answer)
        elif path == self.paths.token and request.method == "POST":
            content = self._see_token(body, answer)
            if self.after_login is not None and answer.status_code == 200:
                hook, self.after_login = self.after_login, None
                await hook()
        self._see_redirect(answer.headers.get("location", ""))
        response = Response(content, answer.status_code)
        response.raw_headers += [
            (name, value) for name, value in answer.headers.raw if name.decode().lower() not in _HOP_BY_HOP
        ]
        return response

    async def _see_registration(self, body: bytes, answer: httpx.Response) -> None:
        sent = json.loads(body)
        registration = Registration(sent.get("scope"), "scope" in sent, answer.status_code, _json(answer))
        self.record.registrations.append(registration)
        if self.judge_registration is not None and (problem := await self.judge_registration(registration)):
            self.record.problems.append(problem)
        if self.after_registration is not None:
            hook, self.after_registration = self.after_registration, None
            await hook()

    async def _see_authorization(self, query: dict[str, str]) -> None:
        authorization = Authorization(
            query["client_id"], query.get("scope"), query.get("resource"), query["redirect_uri"], query.get("state")
        )
        async with self._seeing:
            if self.record.authorizations and self.record.authorizations[-1].state == authorization.state is not None:
                return  # the same request: after a page where the user signed in, or tried by the client before the user
            if self.expect_authorization is not None:
                self._verdicts[len(self.record.authorizations)] = await self.expect_authorization(authorization)
            self.record.authorizations.append(authorization)

    def _see_redirect(self, location: str) -> None:
        if self.record.authorizations and location.startswith(self.record.authorizations[-1].redirect_uri):
            authorization = self.record.authorizations[-1]
            authorization.answer = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(location).query))
            if "error" in authorization.answer:
                self._judge_authorization()

    def _see_token(self, body: bytes, answer: httpx.Response) -> bytes:
        form = dict(urllib.parse.parse_qsl(body.decode()))
        if answer.status_code != 200:
            return answer.content
        tokens = answer.json()
        if form["grant_type"] == "refresh_token":
            self.record.refreshes.append(tokens.get("scope", ""))
        else:
            authorization = self.record.authorizations[-1]
            # A response without scope means what was asked for (RFC 6749 section 5.1).
            authorization.granted = tokens.get("scope", authorization.scope or "")
            self._judge_authorization()
        self._tokens[tokens["access_token"]] = frozenset(str(tokens.get("scope", "")).split())
        if not self.stimulus.has_refresh_token:
            tokens.pop("refresh_token", None)
        if self.stimulus.expires_in is not None and form["grant_type"] != "refresh_token":
            tokens["expires_in"] = self.stimulus.expires_in
        return json.dumps(tokens).encode()

    def _judge_authorization(self) -> None:
        verdict = self._verdicts.pop(len(self.record.authorizations) - 1, None)
        if verdict is not None and (problem := verdict(self.record.authorizations[-1])):
            self.record.problems.append(problem)


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        return dict(answer.json())
    except ValueError:
        return {"text": answer.text[:500]}


def _answer(message: dict[str, Any]) -> dict[str, Any]:
    match message["method"]:
        case "initialize":
            return {
                "result": {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "Example", "version": "1"},
                }
            }
        case "tools/list":
            schema = {"type": "object", "properties": {}}
            return {"result": {"tools": [{"name": name, "inputSchema": schema} for name in TOOLS]}}
        case "tools/call":
            return {"result": {"content": [{"type": "text", "text": "done"}]}}
        case "ping":
            return {"result": {}}
    return {"error": {"code": -32601, "message": "method not found"}}
