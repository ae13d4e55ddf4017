"""A `scopeward serve` of a test's own, on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from demo import POLICY
from demo import RESOURCE as AUDIENCE

import scopeward

__all__ = ["AUDIENCE", "POLICY", "Service", "binary"]


def binary() -> str:
    named = os.environ.get("SCOPEWARD_BIN")
    root = Path(__file__).resolve().parents[3]
    candidates = [named] if named else [root / "target/debug/scopeward", root / "target/release/scopeward"]
    for candidate in candidates:
        if candidate and Path(candidate).exists():
            return str(candidate)
    if not named and (found := shutil.which("scopeward")):
        return found
    raise FileNotFoundError(f"no scopeward in {candidates}; set SCOPEWARD_BIN")


class Service:
    """Starts with the policy above; stops, starts again at the same place, and takes new policies."""

    def __init__(self, folder: Path, *, listen: str = "127.0.0.1:0", arguments: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.policy_file = folder / "policies" / "mcp.yaml"
        self.policy_file.parent.mkdir(parents=True, exist_ok=True)
        self.policy_file.write_text(POLICY)
        self.state = folder / "state"
        self._listen = listen
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self.target = ""

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        command = [binary(), "serve", "--policies", str(self.policy_file.parent), "--state-dir", str(self.state)]
        command += ["--listen", self._listen, "--admin-listen", "127.0.0.1:0", "--debounce", "10ms", "--removal-quiet", "20ms", *self._arguments]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SCOPEWARD_")}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=(self.folder / "log").open("a"), text=True, env=clean
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"grpc=(\S+)", line)
        assert found, f"not ready: {line!r}\n{(self.folder / 'log').read_text()}"
        self.target = found[1]
        if not self.target.startswith("unix:"):
            self._listen = self.target  # the same port after a restart

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(timeout=30)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def write_policy(self, text: str) -> None:
        """Replaces the policy, and waits until it serves."""
        with scopeward.Client(self.target) as client:
            states = client.watch_policy_status()
            before = next(states).active
            fresh = self.policy_file.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(self.policy_file)
            for state in states:
                assert state.last_attempt is not None and state.last_attempt.accepted, state.last_attempt
                if state.active != before:
                    return

    def pause(self) -> None:
        """Stops the process where it is: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def audit(self) -> list[dict[str, Any]]:
        """The audit lines so far, without denials of the last moment: nobody waits for their records."""
        text = self._run("audit", "tail", "--output", "json")
        return [json.loads(line) for line in text.splitlines() if line]

    def has_expansion(self) -> bool:
        return any(line["kind"] == "AUDIT_EVENT_KIND_EXPANSION" for line in self.audit())

    def _run(self, *arguments: str) -> str:
        command = [binary(), *arguments, "--server", self.target]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
