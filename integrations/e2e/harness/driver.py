"""Drives one client: a program that does what it is told, one line of JSON at a time, and a browser for its user."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from browser import Browser

HERE = Path(__file__).resolve().parents[1]
# mcp-remote listens there, so the port is not one of those that the system gives to connections.
REDIRECT_URI = "http://127.0.0.1:23418/callback"


class Cannot(Exception):
    """The client cannot be made to do that."""


class Driver:
    """One process, for any number of cases."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self.seen = ""
        """What the browser showed last, where a page and not the client ended a login."""

    async def __aenter__(self) -> Driver:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if os.environ.get("E2E_VERBOSE") else asyncio.subprocess.DEVNULL,
            env=environment,
            limit=1 << 22,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def do(self, verb: str, **members: Any) -> str | None:
        """`None` if it worked, else the error that the client gave.

        Raises:
            Cannot: if there is no way to make it do that.
        """
        await self._send({"do": verb, **members})
        self.seen = ""
        while True:
            answer = await self._receive()
            if "visit" in answer:
                page = await asyncio.to_thread(Browser(answer.get("redirect_uri", REDIRECT_URI)).visit, answer["visit"])
                self.seen = page.text
                await self._send({"callback": page.url})
                continue
            if "cannot" in answer:
                raise Cannot(answer["cannot"])
            return None if answer["ok"] else str(answer["error"])

    async def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        await self._process.stdin.drain()

    async def _receive(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 300)
        if not line:
            raise RuntimeError(f"{self._command} ended")
        return dict(json.loads(line))
