"""Runs clients against servers. See `--help`; `test.sh` makes the environments first."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE.parent / "python/tests"), str(HERE.parent / "python/examples")]

from cases import CASES  # noqa: E402
from driver import Driver  # noqa: E402
from world import world  # noqa: E402

RESULTS = HERE / "results.json"


@dataclass
class Server:
    title: str
    command: list[str]
    has_documents: bool = True
    """It takes clients with a metadata document."""
    has_plain_form: bool = True
    """It runs without its adapter as well."""


@dataclass
class Client:
    title: str
    command: list[str]
    has_order: bool = True
    """Otherwise its scopes are in another order each time."""
    listens: bool = False
    """It serves the redirect URI itself, in the place of the harness."""


def _python_server(title: str, name: str) -> Server:
    return Server(title, [sys.executable, str(HERE / "servers/python_server.py"), name])


def _node_server(title: str, name: str) -> Server:
    return Server(title, ["node", str(HERE / "servers/node_server.mjs"), name])


def _program(title: str, name: str) -> Server:
    return Server(title, [sys.executable, str(HERE / "servers/program_server.py"), name], has_plain_form=False)


def _gateway(title: str, name: str) -> Server:
    return Server(title, [sys.executable, str(HERE / "servers/gateway_server.py"), name], has_documents=False)


SERVERS = {
    "mcp_sdk": _python_server("MCP Python SDK", "mcp_sdk"),
    "fastmcp_own": _python_server("FastMCP, own provider", "fastmcp_own"),
    "fastmcp_proxy": _python_server("FastMCP `OAuthProxy`", "fastmcp_proxy"),
    "authlib_flask": _python_server("Authlib, Flask", "authlib_flask"),
    "authlib_starlette": _python_server("Authlib, Starlette", "authlib_starlette"),
    "django_toolkit": _python_server("django-oauth-toolkit", "django_toolkit"),
    "oidc-provider": _node_server("oidc-provider", "oidc-provider"),
    "better-auth": _node_server("Better Auth", "better-auth"),
    "mcp-sdk": _node_server("MCP TypeScript SDK", "mcp-sdk"),
    "fosite": _program("fosite", "fosite"),
    # A script that builds the server the first time.
    "spring": Server(
        "Spring Authorization Server",
        [str(HERE.parent / "java/scopeward-spring-example/run.sh")],
        has_documents=False,
    ),
    "keycloak": Server(
        "Keycloak", [sys.executable, str(HERE / "servers/keycloak_server.py")], has_plain_form=False
    ),
    "hydra-gateway": _gateway("Ory Hydra behind the gateway", "hydra"),
    "keycloak-gateway": _gateway("Keycloak behind the gateway", "keycloak"),
}


def clients() -> dict[str, Client]:
    """`test.sh` says where their environments are."""
    typescript = Path(os.environ.get("E2E_TYPESCRIPT", HERE / "clients/typescript"))
    old_python = Path(os.environ.get("E2E_VENVS", HERE / ".venvs"), "client-1/bin/python")
    python = str(HERE / "clients/python/driver.py")
    rust = os.environ.get("E2E_RUST", str(HERE / "clients/rust/target/debug/scopeward-e2e-rust-clients"))

    def sdk(version: str) -> list[str]:
        return ["node", str(typescript / "sdk.mjs"), version]

    return {
        "ts-1.20": Client("TypeScript SDK 1.20.2", sdk("1.20")),
        "ts-1.25": Client("TypeScript SDK 1.25.3", sdk("1.25")),
        "ts-1.32": Client("TypeScript SDK 1.32.2", sdk("1.32")),
        "ts-2.4": Client("`@modelcontextprotocol/client` 2.4.0", sdk("2.4")),
        "py-1.30": Client("Python SDK 1.30.0", [str(old_python), python]),
        "py-2.3": Client("Python SDK 2.3.0", [sys.executable, python]),
        "mcp-remote": Client("mcp-remote 0.15.1", ["node", str(typescript / "mcp-remote.mjs")], listens=True),
        "rmcp-0.17": Client("rmcp 0.17.0", [rust, "0.17"], has_order=False),
        "rmcp-3.11": Client("rmcp 3.11.0", [rust, "3.11"]),
    }


async def run(
    servers: list[str], names: list[str], cases: list[str], fault: str, is_written: bool
) -> tuple[dict[str, Any], list[str]]:
    """Results by client, case and server, and the servers that broke off: the others go on."""
    results: dict[str, Any] = {}
    broken: list[str] = []
    known = clients()
    # Mostly they wait for one another.
    places = asyncio.Semaphore(3)
    # The redirect URI of a metadata document has one port, and others have ports of their own.
    port_of_document = asyncio.Lock()

    async def against(server: str) -> None:
        async with places, world(SERVERS[server].command, fault) as running:
            for name in names:
                started = time.monotonic()
                async with Driver(known[name].command) as driver:
                    for case in CASES:
                        if case.name in cases:
                            if case.stimulus.has_metadata_documents and not SERVERS[server].has_documents:
                                cannot = {"cannot": "the server takes no metadata documents"}
                                results.setdefault(name, {}).setdefault(case.name, {})[server] = cannot
                                continue
                            is_shared = known[name].listens and case.stimulus.has_metadata_documents
                            async with port_of_document if is_shared else contextlib.nullcontext():
                                result = await running.run(case, driver, known[name].has_order)
                            results.setdefault(name, {}).setdefault(case.name, {})[server] = result
                print(f"{server} {name}: {time.monotonic() - started:.1f} s", flush=True)
                if is_written:
                    write(results)

    async def attempt(server: str) -> None:
        try:
            await against(server)
        except Exception:
            traceback.print_exc()
            broken.append(server)

    await asyncio.gather(*(attempt(server) for server in servers))
    return results, broken


Cells = dict[tuple[str, str, str], Any]
"""Results by client, case and server."""


def cells(results: dict[str, Any]) -> Cells:
    return {
        (client, case, server): result
        for client, by_case in results.items()
        for case, by_server in by_case.items()
        for server, result in by_server.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [case.name for case in CASES]
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--clients", default=",".join(clients()))
    parser.add_argument("--cases", default=",".join(names))
    parser.add_argument("--write", action="store_true", help="put what happened into results.json")
    parser.add_argument("--fault", choices=["none", "no-adapter", "ignore-answer"], default="none")
    parser.add_argument("--show", action="store_true", help="print what happened")
    arguments = parser.parse_args()

    found, broken = asyncio.run(
        run(
            arguments.servers.split(","),
            arguments.clients.split(","),
            arguments.cases.split(","),
            arguments.fault,
            arguments.write,
        )
    )
    if arguments.show:
        print(json.dumps(found, indent=1))
    failed = judged(cells(found), arguments.fault)
    for server in broken:
        print("BROKE OFF", server)
    sys.exit(1 if failed or broken else 0)


def read() -> dict[str, Any]:
    return dict(json.loads(RESULTS.read_text())) if RESULTS.exists() else {}


def write(results: dict[str, Any]) -> None:
    """Replaces what was written of the same cells."""
    kept = read()
    for (client, case, server), result in cells(results).items():
        kept.setdefault(client, {}).setdefault(case, {})[server] = result
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def judged(found: Cells, fault: str) -> int:
    """Prints what is not as it has to be; the number of cells with that."""
    wrong = {cell: result["problems"] for cell, result in found.items() if "problems" in result}
    if fault != "none":
        # All of them are to be seen.
        failed = [cell for cell in found if cell not in wrong]
        for cell in failed:
            print("NOT SEEN", *cell)
        print(f"{len(wrong)} passed, {len(failed)} failed")
        return len(failed)
    for cell, problems in wrong.items():
        print("WRONG", *cell, *problems, sep="\n  ")
    before = cells(read())
    changed = [cell for cell, result in found.items() if before.get(cell) != result]
    for cell in changed:
        print("CHANGED", *cell, "\n  was", json.dumps(before.get(cell)), "\n  is ", json.dumps(found[cell]))
    count = len(wrong.keys() | set(changed))
    print(f"{len(found) - count} passed, {count} failed")
    return count


if __name__ == "__main__":
    main()
