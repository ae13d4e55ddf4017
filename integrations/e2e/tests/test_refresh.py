"""Unmodified clients refresh: they get what the policy of now leaves of their grant, without a login, and go on with it."""

from __future__ import annotations

import pytest
from cases import Case
from driver import Driver
from front import Stimulus
from run import SERVERS, clients
from world import World, world

# Those whose adapters ask at the token endpoint.
ASKING = ["mcp_sdk", "fastmcp_own", "fastmcp_proxy", "authlib_flask", "authlib_starlette", "django_toolkit", "oidc-provider", "mcp-sdk", "better-auth"]
CLIENTS = ["ts-1.25", "ts-1.32", "py-2.3"]


async def refreshes(world: World) -> None:
    world.edit_policy_after_login(without="mcp:read")
    await world.connect()
    if not world.record.refreshes:  # some clients look at the time, others at the 401 alone
        world.expire_tokens()
    await world.call("ping")


def gets_less(world: World) -> str | None:
    record = world.record
    if len(record.authorizations) != 1:
        return f"{len(record.authorizations)} logins"
    if not record.refreshes or set(record.refreshes[-1].split()) != {"openid", "offline_access"}:
        return f"refreshed to {record.refreshes}"
    return None


CASE = Case(
    "refresh",
    "refreshes",
    "Logged in with `openid mcp:read offline_access`, its access token ends after the policy lost `mcp:read`.",
    None,
    Stimulus(challenge="openid mcp:read offline_access", expires_in=0),
    refreshes,
    gets_less,
)


@pytest.mark.parametrize("server", ["mcp_sdk", "oidc-provider"])
async def test_a_server_that_does_not_ask_is_seen(server: str) -> None:
    async with world(SERVERS[server].command, "no-adapter") as running:
        async with Driver(clients()["ts-1.32"].command) as driver:
            result = await running.run(CASE, driver)
        assert any("refreshed to" in problem for problem in result["problems"]), result


@pytest.mark.parametrize("server", ASKING)
async def test_a_refresh_gets_less_and_the_client_goes_on(server: str) -> None:
    known = clients()
    async with world(SERVERS[server].command, "none") as running:
        for name in CLIENTS:
            async with Driver(known[name].command) as driver:
                result = await running.run(CASE, driver)
            assert "problems" not in result and "cannot" not in result, (name, result)
            assert [step["step"] for step in result["steps"] if step["error"] is None] == ["connect", "ping"], (name, result)
