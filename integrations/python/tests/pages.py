"""Runs what a Markdown page tells its readers to run, from top to bottom, in a folder of its own.

- ```` ```python file=PATH ````, ```` ```yaml file=PATH ````: written to that file
- ```` ```console serve ````: its command is a server, and stays until the end of the page
- ```` ```console ````: lines that begin with `$ ` are commands, other lines what they print; `...` stands for any text
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from service import binary

PACKAGE = Path(__file__).resolve().parents[1]
DEFAULT_PORT = 50551


def run(page: Path, folder: Path) -> None:
    tools = folder / ".tools"
    tools.mkdir()
    (tools / "scopeward").symlink_to(binary())
    ignored = shutil.ignore_patterns("__pycache__", ".venv", "dist", ".*_cache")
    shutil.copytree(PACKAGE, folder / "integrations/python", ignore=ignored)
    # The address that the pages name may be in use here.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCOPEWARD_")}
    environment["PATH"] = f"{tools}:{environment['PATH']}"
    environment["PYTHONUNBUFFERED"] = "1"
    environment.pop("PYTHONPATH", None)
    servers: list[subprocess.Popen[str]] = []

    def here(text: str) -> str:
        return text.replace(str(DEFAULT_PORT), str(port))

    try:
        for language, words, block in fences(page.read_text()):
            if language in ("python", "yaml") and words and words[0].startswith("file="):
                target = folder / words[0].removeprefix("file=")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(here("".join(f"{line}\n" for line in block)))
            elif language == "console" and words == ["serve"]:
                command = f"exec {block[0].removeprefix('$ ')} --listen 127.0.0.1:{port} --admin-listen 127.0.0.1:0"
                server = subprocess.Popen(
                    command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
                )
                servers.append(server)
                assert server.stdout is not None and "ready" in server.stdout.readline()
            elif language == "console":
                for command, expected in commands(block):
                    done = subprocess.run(
                        here(command), shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
                    )
                    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                    pattern = re.escape("\n".join(expected)).replace(re.escape("..."), "(?s:.*)")
                    assert re.fullmatch(pattern, done.stdout.strip("\n")), f"{command}\n{done.stdout}"
    finally:
        for server in servers:
            server.terminate()
            server.wait()
            assert server.stdout is not None
            server.stdout.close()


def fences(text: str) -> list[tuple[str, list[str], list[str]]]:
    """Language, further words and lines of each fenced block."""
    found = []
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("```") and len(line) > 3:
            language, *words = line[3:].split()
            block = []
            for inner in lines:
                if inner == "```":
                    break
                block.append(inner)
            found.append((language, words, block))
    return found


def commands(block: list[str]) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for line in block:
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found
