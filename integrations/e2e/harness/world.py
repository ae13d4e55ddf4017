"""One authorization server with its Scopeward, and what a case can do to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import urllib.parse
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import cases
import httpx
from cases import Case
from driver import REDIRECT_URI, Cannot, Driver
from front import Authorization, Front, Paths, Record, Registration, Stimulus
from service import Service

import scopeward

DOCUMENT = {
    "client_id": cases.DOCUMENT_URL,
    "client_name": "Example Tool",
    "redirect_uris": [REDIRECT_URI],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}


class World:
    def __init__(self, front: Front, service: Service, gateway: Gateway | None) -> None:
        self._front = front
        self._service = service
        self._gateway = gateway
        self._driver: Driver | None = None
        self._oracle = scopeward.AsyncClient(service.target, deadline=3.0)
        self._registered: dict[str, str] = {}
        self._steps: list[dict[str, str | None]] = []
        front.judge_registration = self._judge_registration
        front.expect_authorization = self._expect_authorization

    @property
    def record(self) -> Record:
        return self._front.record

    @property
    def stimulus(self) -> Stimulus:
        return self._front.stimulus

    async def run(self, case: Case, driver: Driver, has_order: bool = True) -> dict[str, Any]:
        """What happened, as it is written down."""
        self._driver, self._steps = driver, []
        await self.set_policy(**case.policy)
        self._front.begin(Stimulus(**case.stimulus.__dict__))
        settings = {"server": self._front.resource, "scope": case.scope, "redirect_uri": REDIRECT_URI}
        document = cases.DOCUMENT_URL if case.stimulus.has_metadata_documents else None
        try:
            await driver.do("new", client_metadata_url=document, **settings)
            await case.act(self)
            await driver.do("end")
        except Cannot as cannot:
            return {"cannot": str(cannot)}
        problems = list(self.record.problems)
        if goal := case.goal(self):
            problems.append(goal)
        return self._written(problems, has_order)

    # What a case does.

    async def connect(self) -> bool:
        return await self._step("connect", "connect")

    async def call(self, tool: str) -> bool:
        return await self._step(tool, "call", tool=tool)

    async def _step(self, name: str, verb: str, **members: Any) -> bool:
        assert self._driver is not None
        asked = len(self.record.authorizations)
        error = await self._driver.do(verb, **members)
        step = {"step": name, "error": None if error is None else self._plain(error)}
        if self._driver.seen:
            step["page"] = self._plain(self._driver.seen)
        elif len(self.record.authorizations) > asked and "error" in (answer := self.record.authorizations[-1].answer):
            step["page"] = f"{answer['error']}: {answer.get('error_description', '')}"
        self._steps.append(step)
        return error is None

    def expire_tokens(self) -> None:
        self._front.expire_tokens()

    async def forget_tokens(self) -> None:
        assert self._driver is not None
        await self._driver.do("forget")

    async def stop_service(self) -> None:
        await asyncio.to_thread(self._service.stop)
        if self._gateway is not None:
            await self._gateway.do("stop")

    async def start_service(self) -> None:
        """Waits until both that server and this program have it again."""
        await asyncio.to_thread(self._service.start)
        if self._gateway is not None:
            await self._gateway.do("start")
        await self._until_it_is_back()

    async def set_policy(self, **changes: str) -> None:
        text = cases.policy(self._front.resource, **changes)
        if self._service.policy_file.read_text() != text:
            reloads = 0 if self._gateway is None else int(await self._gateway.do("reloads"))
            await asyncio.to_thread(self._service.write_policy, text)
            while self._gateway is not None and int(await self._gateway.do("reloads")) == reloads:
                await asyncio.sleep(0.01)

    def edit_policy_after_registration(self, **changes: str) -> None:
        self._front.after_registration = lambda: self.set_policy(**changes)

    def edit_policy_after_login(self, **changes: str) -> None:
        self._front.after_login = lambda: self.set_policy(**changes)

    async def _until_it_is_back(self) -> None:
        metadata = {name: value for name, value in DOCUMENT.items() if name != "client_id"}
        async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
            for _ in range(400):
                headers = {"host": urllib.parse.urlsplit(self._front.base).netloc}
                answer = await http.post(self._front.upstream + self._front.paths.register, json=metadata, headers=headers)
                with contextlib.suppress(scopeward.Unavailable):
                    await self._oracle.expand_registration_scopes(scope="openid")
                    if answer.status_code < 500:
                        return
                await asyncio.sleep(0.05)
        raise RuntimeError("Scopeward did not come back")

    # What the policy says, asked for directly, to compare with what the server did.

    async def _judge_registration(self, registration: Registration) -> str | None:
        got = f"{registration.status} {registration.answer}"
        try:
            answer = await self._oracle.expand_registration_scopes(
                scope=registration.scope, audiences=[self._front.resource], client=scopeward.OAuthClient(source="dcr")
            )
        except scopeward.Denied as denied:
            is_so = (registration.status, registration.answer.get("error")) == (400, denied.error)
            return None if is_so else f"registration: {got}, and it was to be 400 {denied.error}"
        except scopeward.Unavailable:
            if self._gateway is not None:
                return None if registration.status == 502 else f"registration: {got}, without the gateway"
            # The MCP TypeScript SDK has 500 for every `server_error`.
            is_so = registration.status in (500, 503) and registration.answer.get("error") == "server_error"
            return None if is_so else f"registration: {got}, and it was to be 503 server_error"
        self._registered[str(registration.answer.get("client_id"))] = answer.scope
        is_so = registration.status < 300 and _set(registration.answer.get("scope")) == _set(answer.scope)
        return None if is_so else f"registration: {got}, and it was to be {answer.scope}"

    async def _expect_authorization(self, asked: Authorization) -> Callable[[Authorization], str | None]:
        is_document = asked.client_id == cases.DOCUMENT_URL
        try:
            answer = await self._oracle.check_authorize_scopes(
                scope=asked.scope,
                registered_scope=None if is_document else self._registered.get(asked.client_id),
                audiences=[asked.resource or self._front.resource],
                client=scopeward.OAuthClient(client_id=asked.client_id, source="cimd" if is_document else "dcr"),
            )
        except (scopeward.Denied, scopeward.Unavailable) as failure:
            expected = failure.error
            return lambda got: (
                None
                if got.granted is None and got.answer.get("error") == expected
                else f"authorize {got.scope!r}: {got.granted or got.answer}, and it was to be {expected}"
            )
        scope = answer.scope
        return lambda got: (
            None
            if got.granted is not None and _set(got.granted) == _set(scope)
            else f"authorize {got.scope!r}: {got.granted or got.answer}, and it was to be {scope}"
        )

    def _written(self, problems: list[str], has_order: bool) -> dict[str, Any]:
        record = self.record
        written: dict[str, Any] = {
            "registrations": [
                {"sent": found.scope if found.has_scope else None, "got": self._registration_answer(found)}
                for found in record.registrations
            ],
            "authorizations": [
                {
                    "sent": found.scope if has_order or found.scope is None else _sorted(found.scope),
                    "got": _authorization_answer(found),
                }
                for found in record.authorizations
            ],
            "steps": self._steps,
        }
        if record.refreshes:
            written["refreshes"] = len(record.refreshes)
        if problems:
            written["problems"] = [self._plain(problem) for problem in problems]
        return written

    def _registration_answer(self, found: Registration) -> str:
        if found.status < 300:
            return _sorted(found.answer.get("scope", ""))
        return f"{found.status} {found.answer.get('error')}: {self._plain(str(found.answer.get('error_description', '')))}"

    def _plain(self, text: str) -> str:
        """Without what differs from run to run."""
        text = text.replace(self._front.base, "http://server").replace(self._front.upstream, "http://server")
        return text.replace('": "', '":"').replace('", "', '","')


def _authorization_answer(found: Authorization) -> str:
    if found.granted is not None:
        return _sorted(found.granted)
    if "error" in found.answer:
        return f"{found.answer['error']}: {found.answer.get('error_description', '')}"
    return "no answer" if "code" not in found.answer else "code"


def _set(scope: Any) -> set[str]:
    return set(str(scope or "").split())


def _sorted(scope: Any) -> str:
    return " ".join(sorted(_set(scope)))


class Gateway:
    """What `gateway_server.py` runs, and can stop and start."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, command: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        await self._process.stdin.drain()
        answer = await asyncio.wait_for(self._process.stdout.readline(), 60)
        if not answer:
            raise RuntimeError("the program with the gateway ended")
        return answer.decode().strip()


@contextlib.asynccontextmanager
async def world(command: list[str], fault: str) -> AsyncIterator[World]:
    """Starts Scopeward, the server that `command` starts, and what stands in front of it."""
    with tempfile.TemporaryDirectory(prefix="scopeward-e2e-") as folder:
        async with Front() as front:
            service = Service(Path(folder))
            service.policy_file.write_text(cases.policy(front.resource))
            await asyncio.to_thread(service.start)
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--target", service.target, "--base", front.base, "--resource", front.resource),
                *("--document", json.dumps(DOCUMENT), "--fault", fault),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "E2E_POLICIES": str(service.policy_file.parent)},
            )
            assert process.stdout is not None and process.stdin is not None
            try:
                ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 600))
                front.upstream = f"http://127.0.0.1:{ready['port']}"
                front.paths = Paths(ready["register"], ready["authorize"], ready["token"], ready.get("issuer", ""))
                yield World(front, service, Gateway(process) if ready.get("is_gateway") else None)
            finally:
                process.stdin.close()
                try:
                    await asyncio.wait_for(process.wait(), 10)
                except asyncio.TimeoutError:
                    process.kill()
                    await process.wait()
                await asyncio.to_thread(service.stop)
