"""Authlib's authorization server in Starlette: Authlib has no integration for it, so the example has one of thirty lines."""

from __future__ import annotations

import html
from collections import defaultdict
from typing import Any

import authlib_core
import demo
from authlib.common.security import generate_token
from authlib.oauth2 import AuthorizationServer, OAuth2Error, OAuth2Request
from authlib.oauth2.rfc6749 import JsonPayload, JsonRequest, OAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from scopeward import Client
from scopeward.authlib import with_scopeward


class Payload(OAuth2Payload):  # type: ignore[misc]
    def __init__(self, items: list[tuple[str, str]]) -> None:
        self._data = dict(items)
        self._datalist: defaultdict[str, list[str]] = defaultdict(list)
        for name, value in items:
            self._datalist[name].append(value)

    @property
    def data(self) -> dict[str, str]:
        return self._data

    @property
    def datalist(self) -> defaultdict[str, list[str]]:
        return self._datalist


class FormRequest(OAuth2Request):  # type: ignore[misc]
    def __init__(self, request: Request, items: list[tuple[str, str]]) -> None:
        super().__init__(request.method, str(request.url), headers=request.headers)
        self.payload = Payload(items)

    @property
    def args(self) -> dict[str, str]:
        return dict(self.payload.data)

    @property
    def form(self) -> dict[str, str]:
        return dict(self.payload.data)


class MetadataRequest(JsonRequest):  # type: ignore[misc]
    def __init__(self, request: Request, body: Any) -> None:
        super().__init__(request.method, str(request.url), headers=request.headers)
        self.payload = Metadata()
        self.payload.data = body


class Metadata(JsonPayload):  # type: ignore[misc]
    data: Any = None


class Server(AuthorizationServer):  # type: ignore[misc]
    """Takes requests that were read before, since reading is asynchronous and Authlib is not."""

    def __init__(self, store: authlib_core.Store) -> None:
        super().__init__()
        self.query_client = store.query_client
        self.save_token = store.save_token
        self.register_token_generator(
            "default", BearerTokenGenerator(lambda **_: generate_token(42), lambda **_: generate_token(48))
        )

    def create_oauth2_request(self, request: FormRequest) -> FormRequest:
        return request

    def create_json_request(self, request: MetadataRequest) -> MetadataRequest:
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Response:
        kind = JSONResponse if isinstance(body, dict) else Response
        return kind(body, status, dict(headers))

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        pass


def make_app(target: str, base: str) -> Any:
    store = authlib_core.Store()
    server = with_scopeward(Server(store), Client(target))
    authlib_core.register(server, store)

    async def read(request: Request) -> FormRequest:
        form = await request.form()
        items = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        return FormRequest(request, list(request.query_params.multi_items()) + items)

    async def register(request: Request) -> Response:
        asked = MetadataRequest(request, await request.json() if request.method != "GET" else None)
        name = "client_configuration" if "client_id" in request.path_params else "client_registration"
        # The server blocks while it asks, so it has a thread.
        response: Response = await run_in_threadpool(server.create_endpoint_response, name, asked)
        return response

    def answer(asked: FormRequest) -> Response:
        try:
            grant = server.get_consent_grant(asked, end_user="user")
        except OAuth2Error as error:
            failed: Response = server.handle_error_response(asked, error)
            return failed
        if asked.method == "POST":
            response: Response = server.create_authorization_response(asked, grant=grant, grant_user="user")
            return response
        name = html.escape(str(grant.request.client.client_metadata.get("client_name")))
        return HTMLResponse(authlib_core.CONSENT.format(client=name, scope=html.escape(grant.request.scope)))

    async def authorize(request: Request) -> Response:
        return await run_in_threadpool(answer, await read(request))

    async def token(request: Request) -> Response:
        response: Response = await run_in_threadpool(server.create_token_response, await read(request))
        return response

    app = Starlette(
        routes=[
            Route("/register", register, methods=["POST"]),
            Route("/register/{client_id}", register, methods=["GET", "PUT"]),
            Route("/authorize", authorize, methods=["GET", "POST"]),
            Route("/token", token, methods=["POST"]),
        ]
    )
    app.state.store = store
    return app


EXAMPLE = demo.Example(make_app)

if __name__ == "__main__":
    demo.main(EXAMPLE)
