"""An application that uses the MCP Python SDK, 1.x or 2.x, as its own examples do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import urllib.parse
from importlib import metadata
from typing import Any

import anyio
from mcp.client.auth import OAuthClientProvider
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

IS_FIRST = metadata.version("mcp").startswith("1.")
logging.disable()


def say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


async def hear() -> dict[str, Any] | None:
    line = await anyio.to_thread.run_sync(sys.stdin.readline)
    return json.loads(line) if line else None


class Storage:
    """Keeps what the SDK gives it, in memory."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Application:
    def __init__(self) -> None:
        self.storage = Storage()
        self.settings: dict[str, Any] = {}
        self.callback: dict[str, str] = {}
        self.stack = contextlib.AsyncExitStack()
        self.session: Any = None

    async def new(self, message: dict[str, Any]) -> None:
        self.settings, self.storage = message, Storage()

    async def forget(self, message: dict[str, Any]) -> None:
        self.storage.tokens = None

    async def connect(self, message: dict[str, Any]) -> None:
        await self.end({})
        scope = self.settings["scope"]
        provider = OAuthClientProvider(
            server_url=self.settings["server"],
            client_metadata=OAuthClientMetadata.model_validate(
                {
                    "client_name": "Example Tool",
                    "redirect_uris": [self.settings["redirect_uri"]],
                    "grant_types": ["authorization_code", "refresh_token"],
                    "response_types": ["code"],
                    "token_endpoint_auth_method": "none",
                    **({} if scope is None else {"scope": scope}),
                }
            ),
            storage=self.storage,
            redirect_handler=self.redirect,
            callback_handler=self.wait_for_callback,
            client_metadata_url=self.settings["client_metadata_url"],
        )
        async with contextlib.AsyncExitStack() as stack:
            http = await stack.enter_async_context(create_mcp_http_client(auth=provider))
            streams = await stack.enter_async_context(streamable_http_client(self.settings["server"], http_client=http))
            self.session = await stack.enter_async_context(ClientSession(streams[0], streams[1]))
            await self.session.initialize()
            self.stack = stack.pop_all()

    async def call(self, message: dict[str, Any]) -> None:
        await self.session.call_tool(message["tool"], {})

    async def end(self, message: dict[str, Any]) -> None:
        stack, self.stack = self.stack, contextlib.AsyncExitStack()
        with contextlib.suppress(Exception):
            await stack.aclose()

    async def ended_by(self, cancelled: asyncio.CancelledError) -> BaseException:
        """What ended the session, which cancels whoever waits for one of its answers."""
        stack, self.stack = self.stack, contextlib.AsyncExitStack()
        try:
            await stack.__aexit__(type(cancelled), cancelled, cancelled.__traceback__)
        except BaseException as error:
            return error
        return cancelled

    async def redirect(self, url: str) -> None:
        say({"visit": url})
        answer = await hear()
        assert answer is not None
        self.callback = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(answer["callback"]).query))

    async def wait_for_callback(self) -> Any:
        parameters = self.callback
        if "error" in parameters:
            raise RuntimeError(f"OAuth authorization failed: {parameters['error']}")
        if IS_FIRST:
            return parameters["code"], parameters.get("state")
        from mcp.shared.auth import AuthorizationCodeResult

        return AuthorizationCodeResult.model_validate(parameters)


def innermost(error: BaseException) -> BaseException:
    """A task group puts what went wrong into groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def main() -> None:
    application = Application()
    while message := await hear():
        try:
            await getattr(application, message["do"])(message)
        except asyncio.CancelledError as cancelled:
            say({"ok": False, "error": str(innermost(await application.ended_by(cancelled)))})
        except Exception as error:
            say({"ok": False, "error": str(innermost(error))})
        else:
            say({"ok": True})


anyio.run(main)
