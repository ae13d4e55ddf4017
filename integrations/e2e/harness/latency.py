"""What Scopeward adds to a login: each server with its adapter and without it, in alternating rounds. Prints a table; asserts nothing.

Usage: latency.py [ROUNDS [SERVER...]]: 300 rounds by default, at all servers that run without their adapter as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from run import SERVERS

import demo  # after `run`, which says where it is
from service import Service

STEPS = ("register", "register, scope added", "authorize", "login")


class Running:
    """One server process, with a client of it."""

    def __init__(self, command: list[str], target: str, fault: str) -> None:
        self._process = subprocess.Popen(
            [*command, "--target", target, "--fault", fault], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        ready = json.loads(self._process.stdout.readline())
        example = demo.Example(
            make_app=lambda *_: None,
            register=ready["register"],
            authorize=ready["authorize"],
            token=ready["token"],
            # Both kinds of FastMCP know no resource but themselves, which the policy here does not have.
            resource=None,
        )
        self.login = demo.Login(example, f"http://localhost:{ready['port']}")
        self.times: defaultdict[str, list[float]] = defaultdict(list)

    def round(self) -> None:
        begun = time.perf_counter()
        client = self._timed("register", lambda: self.login.register("openid offline_access"))
        answer = self._timed("authorize", lambda: self.login.authorize(client, "openid offline_access"))
        self.login.token(
            client,
            grant_type="authorization_code",
            code=answer["code"],
            code_verifier=answer["code_verifier"],
            redirect_uri=demo.REDIRECT_URI,
        )
        self.times["login"].append(time.perf_counter() - begun)
        self._timed("register, scope added", lambda: self.login.register("openid"))

    def _timed(self, step: str, act: Any) -> Any:
        begun = time.perf_counter()
        result = act()
        self.times[step].append(time.perf_counter() - begun)
        return result

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def percentile(times: list[float], part: float) -> float:
    """In milliseconds."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print("| server | step | p50 without | p50 with | p99 without | p99 with |\n| --- | --- | --- | --- | --- | --- |", flush=True)
    for name in sys.argv[2:] or [name for name, server in SERVERS.items() if server.has_plain_form]:
        server = SERVERS[name]
        with tempfile.TemporaryDirectory(prefix="scopeward-e2e-") as folder, Service(Path(folder)) as service:
            plain, asking = (Running(server.command, service.target, fault) for fault in ("no-adapter", "none"))
            for number in range(rounds + 10):
                for running in (plain, asking) if number % 2 else (asking, plain):
                    running.round()
            plain.end()
            asking.end()
        for step in STEPS:
            # The first rounds open connections and fill caches.
            before, after = plain.times[step][10:], asking.times[step][10:]
            numbers = [percentile(times, part) for part in (0.5, 0.99) for times in (before, after)]
            print(f"| {server.title} | {step} | " + " | ".join(f"{number:.1f}" for number in numbers) + " |", flush=True)


if __name__ == "__main__":
    main()
