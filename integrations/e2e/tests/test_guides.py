"""The guides about the gateway do what they say, with real servers.

Of a page these run, in a folder of its own: ```` ```yaml gateway=PATH ```` is written; of ```` ```console no-run gateway ```` each line
after `$ ` is a command, other lines what it prints, and with `serve` at the end the command stays until the end of the page.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pages
import pytest
from service import binary
from upstreams import VENVS, Program, free_port, keycloak_home

REPOSITORY = Path(__file__).resolve().parents[3]
GUIDES = REPOSITORY / "docs/guides"
PORTS = ("50553", "4444", "4445", "3000", "8080")


@pytest.mark.parametrize("name", ["gateway-ory-hydra", "gateway-keycloak"])
def test_the_guide_runs(name: str, tmp_path: Path) -> None:
    if shutil.which("mvn" if name == "gateway-keycloak" else "go") is None:
        pytest.skip("cannot be built here")
    ports = {port: str(free_port()) for port in PORTS}
    (tmp_path / "integrations").symlink_to(REPOSITORY / "integrations")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scopeward").symlink_to(binary())
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SCOPEWARD_LISTEN": f"127.0.0.1:{ports['50553']}",
        "SCOPEWARD_ADMIN_LISTEN": "127.0.0.1:0",
        "HYDRA_BIN": str(VENVS / "hydra"),
    }
    if name == "gateway-keycloak":
        (tmp_path / "keycloak").symlink_to(keycloak_home())
    programs: list[Program] = []

    def here(text: str) -> str:
        text = re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: ports[found[1]], text)
        return text.replace("/opt/keycloak", str(tmp_path / "keycloak"))

    try:
        for language, words, block in pages.fences((GUIDES / f"{name}.md").read_text()):
            if language == "yaml" and words and words[0].startswith("gateway="):
                target = tmp_path / words[0].removeprefix("gateway=")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(here("".join(f"{line}\n" for line in block)))
            elif (language, words[:2]) == ("console", ["no-run", "gateway"]):
                for command, expected in commands(block):
                    if words[2:] == ["serve"]:
                        programs.append(served(here(command), tmp_path, environment))
                    else:
                        printed = run(here(command), tmp_path, environment)
                        pattern = re.escape(here("\n".join(expected))).replace(re.escape("..."), ".*")
                        assert not expected or re.fullmatch(pattern, printed), f"{command}\n{printed}"
    finally:
        for program in reversed(programs):
            program.stop()


def served(command: str, folder: Path, environment: dict[str, str]) -> Program:
    program = Program(folder / "servers.log")
    output = program.run(["bash", "-c", f"cd {folder} && exec env {command}"], **environment).stdout
    assert output is not None
    if command.startswith("scopeward"):
        ready = next((line for line in output if "ready: " in line), "")
        admin = re.search(r"admin=(\S+)", ready)
        assert admin, program.log.read_text()[-2000:]
        program.until(f"http://{admin[1]}/readyz")
    return program


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SCOPEWARD_")} | environment
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout.strip("\n")


def commands(block: list[str]) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for line in block:
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        else:
            found[-1][1].append(line)
    return found
