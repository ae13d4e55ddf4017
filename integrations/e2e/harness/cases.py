"""The cases: what the resource, the discovery documents and the policy say, what the user does, and what must come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from front import Stimulus

if TYPE_CHECKING:
    from world import World

DOCUMENT_URL = "https://client.example.com/metadata.json"
EVERYTHING = ["openid", "profile", "offline_access", "mcp:read", "mcp:write", "admin", "billing:read"]


@dataclass
class Case:
    name: str
    title: str
    about: str
    """One sentence for readers of the table."""
    scope: str | None
    """What the application has as the scope of its client metadata."""
    stimulus: Stimulus
    act: Callable[[World], Awaitable[None]]
    goal: Callable[[World], str | None]
    """`None`, or what is wrong whatever the client is."""
    policy: dict[str, str] = field(default_factory=dict)


def policy(resource: str, *, without: str = "", authorization: str = "", registration: str = "") -> str:
    """The policy of all cases, with what one of them changes."""
    text = f"""\
audiences:
  {resource}:
    scopesSupported: [openid, profile, offline_access, "mcp:read", "mcp:write", admin, root]
    baselineClientScopes: [offline_access]
    defaultClientScopes: [openid, "mcp:read"]
    privilegedScopes: [admin]
    forbiddenScopes: [root]
    registration: {{{registration}}}
    authorization: {{stepUpScopes: ["mcp:write"]{authorization}}}
"""
    return text.replace(f', "{without}"', "")


async def connects(world: World) -> None:
    await world.connect()


def gets(*wanted: str) -> Callable[[World], str | None]:
    """The last login was granted exactly these."""

    def goal(world: World) -> str | None:
        granted = last_grant(world)
        return None if granted == set(wanted) else f"granted {granted}, and {set(wanted)} was to be"

    return goal


def gets_defaults(world: World) -> str | None:
    """If nothing was asked for; some clients have scopes of their own for that case."""
    registered = any(found.scope for found in world.record.registrations)
    is_silent = not registered and not any(found.scope for found in world.record.authorizations)
    return gets("openid", "mcp:read", "offline_access")(world) if is_silent else None


def last_grant(world: World) -> set[str] | None:
    authorizations = world.record.authorizations
    return set(authorizations[-1].granted.split()) if authorizations and authorizations[-1].granted is not None else None


def logs_in(world: World) -> str | None:
    """Whatever it asked for in the end, it got it."""
    return None if last_grant(world) else "no login"


def nothing_wrong(world: World) -> str | None:
    """The server answers as the policy does, which every case demands; what the client makes of it is in the table."""
    return None


def grants_nothing(world: World) -> str | None:
    granted = [found.granted for found in world.record.authorizations if found.granted is not None]
    registered = [found.answer for found in world.record.registrations if found.status < 300 and "root" in found.answer.get("scope", "")]
    return f"granted {granted}, registered {registered}" if granted or registered else None


async def logs_in_twice(world: World) -> None:
    """The second time with the registration of the first, and the resource wants more."""
    await world.connect()
    await world.forget_tokens()
    world.stimulus.challenge = "openid offline_access"
    await world.connect()


async def steps_up(world: World) -> None:
    if await world.connect() and await world.call("read"):
        await world.call("write")
        await world.call("read")


async def registers_while_down(world: World) -> None:
    await world.stop_service()
    await world.connect()
    if any(found.granted is not None for found in world.record.authorizations):
        world.record.problems.append("a login without the service")
    await world.start_service()
    await world.connect()


async def authorizes_while_down(world: World) -> None:
    await world.connect()
    await world.forget_tokens()
    await world.stop_service()
    await world.connect()
    if len([found for found in world.record.authorizations if found.granted is not None]) > 1:
        world.record.problems.append("a login without the service")
    await world.start_service()
    await world.connect()


async def policy_is_edited(world: World) -> None:
    world.edit_policy_after_registration(without="mcp:read")
    await world.connect()
    await world.set_policy()
    await world.connect()


STEP_UP = Stimulus(challenge="openid mcp:read offline_access")
WITHOUT_REFRESH_TOKEN = Stimulus(challenge="openid mcp:read offline_access", has_refresh_token=False)

CASES = [
    Case(
        "narrow-wide",
        "registers narrow, asks wide",
        "The application has `openid` as its scope; the challenge wants `openid offline_access`.",
        "openid",
        Stimulus(challenge="openid offline_access"),
        connects,
        logs_in,
    ),
    Case(
        "reused",
        "reuses a narrow registration",
        "A client that registered for the challenge `openid` has lost its tokens, and the challenge now wants `openid offline_access`.",
        "openid",
        Stimulus(challenge="openid"),
        logs_in_twice,
        logs_in,
    ),
    Case(
        "absent",
        "no scope anywhere",
        "Application, challenge and metadata name no scope.",
        None,
        Stimulus(),
        connects,
        gets_defaults,
    ),
    Case(
        "empty",
        'scope `""`',
        "The application has an empty scope; challenge and metadata name none.",
        "",
        Stimulus(),
        connects,
        gets_defaults,
    ),
    Case(
        "empty-challenge",
        "empty challenge",
        'The challenge has `scope=""`; application and metadata name none.',
        None,
        Stimulus(challenge=""),
        connects,
        nothing_wrong,
    ),
    Case(
        "blank",
        "leading blank",
        "Application and challenge have ` openid offline_access`.",
        " openid offline_access",
        Stimulus(challenge=" openid offline_access"),
        connects,
        gets("openid", "offline_access"),
    ),
    Case(
        "step-up",
        "step-up",
        "Logged in with `openid mcp:read offline_access`, it calls a tool for `mcp:read`, one that answers 403 with "
        "`scope=\"mcp:write\"`, and the first one again.",
        None,
        STEP_UP,
        steps_up,
        nothing_wrong,
    ),
    Case(
        "step-up-no-refresh",
        "step-up without refresh token",
        "The same, with a server that issued no refresh token.",
        None,
        WITHOUT_REFRESH_TOKEN,
        steps_up,
        nothing_wrong,
    ),
    Case(
        "step-up-always",
        "the same with `alwaysGrantScopes`",
        "The policy has `alwaysGrantScopes: [openid, mcp:read, offline_access]` in addition.",
        None,
        WITHOUT_REFRESH_TOKEN,
        steps_up,
        nothing_wrong,
        policy={"authorization": ', alwaysGrantScopes: [openid, "mcp:read", offline_access]'},
    ),
    Case(
        "over-ask",
        "everything is advertised",
        "Metadata advertise `openid profile offline_access mcp:read mcp:write admin billing:read`, the last of which is another "
        "resource's; application and challenge name none.",
        None,
        Stimulus(advertised=EVERYTHING),
        connects,
        nothing_wrong,
    ),
    Case(
        "over-ask-drop",
        "the same with `drop`",
        "The policy has `unsupportedScopes: drop` at both moments and `unregisteredScopes: drop` in addition.",
        None,
        Stimulus(advertised=EVERYTHING),
        connects,
        logs_in,
        policy={
            "registration": "unsupportedScopes: drop",
            "authorization": ", unsupportedScopes: drop, unregisteredScopes: drop",
        },
    ),
    Case(
        "forbidden",
        "only what is forbidden",
        "Application and challenge have `root`.",
        "root",
        Stimulus(challenge="root"),
        connects,
        grants_nothing,
    ),
    Case(
        "down-register",
        "Scopeward is down, then back",
        "It is down when the client registers; the user tries again once it is back.",
        "openid",
        Stimulus(challenge="openid"),
        registers_while_down,
        gets("openid"),
    ),
    Case(
        "down-authorize",
        "down at the second login",
        "A registered client has lost its tokens; Scopeward is down when it asks, and back when the user tries again.",
        "openid",
        Stimulus(challenge="openid"),
        authorizes_while_down,
        gets("openid"),
    ),
    Case(
        "policy-edit",
        "policy edited in between",
        "Application and challenge have `openid mcp:read`; after the registration the policy loses `mcp:read`, and has it again when the "
        "user tries again.",
        "openid mcp:read",
        Stimulus(challenge="openid mcp:read"),
        policy_is_edited,
        gets("openid", "mcp:read"),
    ),
    Case(
        "cimd",
        "client id metadata document",
        "The client has a metadata document and the server says that it takes them; the challenge wants `openid mcp:read`.",
        "openid",
        Stimulus(challenge="openid mcp:read", has_metadata_documents=True),
        connects,
        logs_in,
    ),
]
