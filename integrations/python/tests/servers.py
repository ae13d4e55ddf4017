"""The servers of the examples, with any client of Scopeward."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import demo
from demo import Login, OAuthFailure
from service import Service

import scopeward

# FastMCP wants a newer Python than this package does.
HAS_FASTMCP = importlib.util.find_spec("fastmcp") is not None
_FASTMCP = ["fastmcp_own", "fastmcp_proxy"] if HAS_FASTMCP else []
SERVERS = ["mcp_sdk", *_FASTMCP, "authlib_flask", "authlib_starlette", "django_toolkit"]
T = TypeVar("T")


@dataclass
class Running:
    """A server, its Scopeward, and a client of it."""

    name: str
    app: Any
    service: Service
    login: Login

    def expansions(self, after: int = 0) -> list[dict[str, Any]]:
        """Those after a sequence. Each was recorded before its answer, other than a denial."""
        events: list[dict[str, Any]] = self.service.audit()
        return [event for event in events if event["kind"] == "AUDIT_EVENT_KIND_EXPANSION" and int(event["sequence"]) > after]

    def last(self) -> int:
        """The sequence of the last of them, or 0."""
        return max((int(event["sequence"]) for event in self.expansions()), default=0)


@contextlib.contextmanager
def serving(name: str, target: str, **options: Any) -> Iterator[tuple[Any, Login]]:
    """The app, and a client that logs in there. `options` are those of `scopeward.Client`."""
    example: demo.Example = importlib.import_module(name).EXAMPLE
    apps: list[Any] = []

    def make_app(target: str, base: str) -> Any:
        apps.append(_django_app() if name == "django_toolkit" else example.make_app(target, base))
        return apps[0]

    with contextlib.ExitStack() as stack:
        if name == "django_toolkit":
            stack.enter_context(_django_settings({"target": target, **options}))
        else:
            stack.enter_context(_defaults(options))
        base = stack.enter_context(demo.served(demo.Example(**{**example.__dict__, "make_app": make_app}), target))
        yield apps[0], Login(example, base)


@contextlib.contextmanager
def _defaults(options: dict[str, Any]) -> Iterator[None]:
    """The examples make their client from a target alone."""
    own = [client.__init__.__kwdefaults__ for client in (scopeward.Client, scopeward.AsyncClient)]
    before = [dict(defaults or {}) for defaults in own]
    for defaults in own:
        assert defaults is not None
        defaults.update(options)
    try:
        yield
    finally:
        for defaults, kept in zip(own, before):
            assert defaults is not None
            defaults.clear()
            defaults.update(kept)


@functools.cache
def _django_app() -> Any:
    """Django has its settings for a process; they are filled in below."""
    return importlib.import_module("django_toolkit").make_app("", "")


@contextlib.contextmanager
def _django_settings(options: dict[str, Any]) -> Iterator[None]:
    _django_app()
    from django.conf import settings

    from scopeward.django import asking

    before, settings.SCOPEWARD = settings.SCOPEWARD, options
    asking.client.cache_clear()
    try:
        yield
    finally:
        settings.SCOPEWARD = before
        asking.client.cache_clear()


def eventually(attempt: Callable[[], T]) -> T:
    """Once Scopeward is reached again; whatever else is wrong is raised."""
    for _ in range(400):
        try:
            return attempt()
        except OAuthFailure as failure:
            assert failure.error == "temporarily_unavailable" or failure.status == 503, failure.answer
            threading.Event().wait(0.05)
    raise AssertionError("it did not come back")
