"""Runs one of the example servers of `integrations/python` for the harness.

Prints its port as one line of JSON, and serves until its standard input ends.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python/examples"))

import demo  # noqa: E402

import scopeward  # noqa: E402

# The registration of django-oauth-toolkit hashes a secret, for a second or so with the default.
FAST_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--target", required=True)
    parser.add_argument("--base", help="where its clients reach it, if not at its own port")
    parser.add_argument("--resource", default=demo.RESOURCE)
    parser.add_argument("--document", help="the client metadata document, as JSON")
    parser.add_argument("--fault", choices=["none", "no-adapter", "ignore-answer"], default="none")
    arguments = parser.parse_args()

    demo.RESOURCE = arguments.resource
    # A busy machine may take a second for an answer, and no case is about that.
    for client in (scopeward.AsyncClient, scopeward.Client):
        assert client.__init__.__kwdefaults__ is not None
        client.__init__.__kwdefaults__["deadline"] = 3.0
    module = importlib.import_module(arguments.name)
    if arguments.name == "django_toolkit":
        configure_django(PASSWORD_HASHERS=FAST_HASHERS)
    if arguments.fault == "no-adapter":
        remove_adapter(module)
    elif arguments.fault == "ignore-answer":
        ignore_answers()
    if arguments.document is not None:
        know_document(arguments.name, module, json.loads(arguments.document))

    example: demo.Example = module.EXAMPLE
    members = {**example.__dict__, "make_app": lambda target, base: example.make_app(target, arguments.base or base)}
    with demo.served(demo.Example(**members), arguments.target) as base:
        paths = {"register": example.register, "authorize": example.authorize, "token": example.token}
        print(json.dumps({"port": int(base.rpartition(":")[2]), **paths}), flush=True)
        sys.stdin.read()


def remove_adapter(module: Any) -> None:
    if module.__name__ != "django_toolkit":
        module.with_scopeward = lambda server, *_, **__: server
        return
    own = ("OAUTH2_VALIDATOR_CLASS", "SCOPES_BACKEND_CLASS")
    configure_django(without=own)

    def urls(name: str) -> Any:
        from django.urls import include, path

        if name != "urlpatterns":
            raise AttributeError(name)
        return [path("login/", module.login), path("o/", include("oauth2_provider.urls"))]

    module.__getattr__ = urls


def ignore_answers() -> None:
    """A fault to show that the harness sees it: whatever was asked for is granted."""
    real_blocking, real = scopeward.Client.check_authorize_scopes, scopeward.AsyncClient.check_authorize_scopes
    granted = "openid profile mcp:read mcp:write admin root"

    def all_of_it(asked: str | None) -> Any:
        class Answer:
            scope = effective_registered_scope = asked or granted

        return Answer()

    def blocking(self: Any, *, scope: str | None = None, **named: Any) -> Any:
        try:
            return real_blocking(self, scope=scope, **named)
        except scopeward.Denied:
            return all_of_it(scope)

    async def asynchronous(self: Any, *, scope: str | None = None, **named: Any) -> Any:
        try:
            return await real(self, scope=scope, **named)
        except scopeward.Denied:
            return all_of_it(scope)

    scopeward.Client.check_authorize_scopes = blocking  # type: ignore[method-assign]
    scopeward.AsyncClient.check_authorize_scopes = asynchronous  # type: ignore[method-assign]


def know_document(name: str, module: Any, document: dict[str, Any]) -> None:
    """Makes the server know the client of the metadata document, whose https URL nothing on loopback can serve."""
    client_id = document["client_id"]
    if name == "mcp_sdk":
        from mcp.shared.auth import OAuthClientInformationFull

        class Knowing(module.MemoryProvider):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.clients[client_id] = OAuthClientInformationFull.model_validate(document)

        module.MemoryProvider = Knowing
    elif name == "fastmcp_own":
        from mcp.shared.auth import OAuthClientInformationFull

        class KnowingInMemory(module.InMemoryOAuthProvider):  # type: ignore[misc]
            def __init__(self, *arguments: Any, **named: Any) -> None:
                super().__init__(*arguments, **named)
                self.clients[client_id] = OAuthClientInformationFull.model_validate(document)

        module.InMemoryOAuthProvider = KnowingInMemory
    elif name == "fastmcp_proxy":
        from fastmcp.server.auth import cimd

        async def fetch(self: Any, url: str) -> Any:
            if url != client_id:
                raise cimd.CIMDFetchError(f"no document at {url}")
            return cimd.CIMDDocument.model_validate(document)

        cimd.CIMDFetcher.fetch = fetch  # type: ignore[method-assign,assignment]
    elif name.startswith("authlib"):
        import authlib_core

        store = authlib_core.Store

        def knowing() -> Any:
            members = {key: value for key, value in document.items() if key != "client_id"}
            return store(clients={client_id: authlib_core.StoredClient(client_id, members)})

        authlib_core.Store = knowing  # type: ignore[misc,assignment]
    elif name == "django_toolkit":

        class Fetcher:
            def fetch(self, url: str) -> tuple[dict[str, Any], int]:
                return document, 600

        configure_django(toolkit={"CIMD_ENABLED": True, "CIMD_METADATA_FETCHER": Fetcher})


def configure_django(*, without: tuple[str, ...] = (), toolkit: dict[str, Any] | None = None, **settings: Any) -> None:
    """Changes what the example will configure: settings of Django, and those of the toolkit."""
    from django.conf import LazySettings

    configure = LazySettings.configure

    def configured(self: Any, **named: Any) -> None:
        own = {**named["OAUTH2_PROVIDER"], **(toolkit or {})}
        named["OAUTH2_PROVIDER"] = {key: value for key, value in own.items() if key not in without}
        configure(self, **{**named, **settings})

    LazySettings.configure = configured


if __name__ == "__main__":
    main()
