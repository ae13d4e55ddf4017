"""The README is true: its commands run in a fresh environment, and its code is typed. So is code that uses the adapters."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pages
from servers import HAS_FASTMCP


def test_the_readme_runs(tmp_path: Path) -> None:
    pages.run(pages.PACKAGE / "README.md", tmp_path)


def test_code_of_users_passes_the_strict_type_checker(tmp_path: Path) -> None:
    sources = []
    for language, words, block in pages.fences((pages.PACKAGE / "README.md").read_text()):
        if language == "python" and words:
            sources.append(tmp_path / words[0].removeprefix("file="))
            sources[-1].write_text("\n".join(block))
    assert sources
    check = subprocess.run([sys.executable, "-m", "mypy", "--strict", *map(str, sources)], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import scopeward\nscopeward.Client().check_authorize_scopes(scope=1)\n")
    check = subprocess.run([sys.executable, "-m", "mypy", "--strict", str(wrong)], capture_output=True, text=True)
    assert "incompatible type" in check.stdout, check.stdout


def check_strictly(*sources: Path) -> subprocess.CompletedProcess[str]:
    """As in a project of a user, who has the packages installed and no stubs of those that have no types."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(pages.PACKAGE / "pyproject.toml"), *map(str, sources)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MYPYPATH": str(pages.PACKAGE / "examples")})


def test_code_with_adapters_passes_the_strict_type_checker() -> None:
    examples = sorted((pages.PACKAGE / "examples").glob("*.py"))
    check = check_strictly(*(file for file in examples if HAS_FASTMCP or not file.name.startswith("fastmcp_")))
    assert check.returncode == 0, check.stdout


def test_wrong_code_with_adapters_is_found_by_the_type_checker(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    lines = {
        "import mcp_sdk, scopeward": None,
        "from scopeward import authlib, mcp": None,
        "provider = mcp_sdk.MemoryProvider()": None,
        "mcp.with_scopeward(provider, scopeward.Client())": "arg-type",  # blocks, and the server is asynchronous
        "mcp.with_scopeward(provider, scopeward.AsyncClient()).clients.append": "attr-defined",  # the provider's own type
        "authlib.with_scopeward(object(), scopeward.AsyncClient())": "arg-type",
        "authlib.with_scopeward(object(), scopeward.Client(), audiences='x')": "call-arg",
        "mcp.with_scopeward(provider, scopeward.AsyncClient(), client_source=lambda client: 'dynamic')": "arg-type",
    }
    if HAS_FASTMCP:
        lines["from scopeward import fastmcp"] = None
        lines["fastmcp.with_scopeward(provider, scopeward.AsyncClient())"] = "type-var"  # the provider of another server
    wrong.write_text("\n".join(lines))
    found: dict[str, str] = {}
    for line, code in re.findall(r"wrong\.py:(\d+): error: .*\[([a-z-]+)\]$", check_strictly(wrong).stdout, re.MULTILINE):
        found.setdefault(line, code)
    assert found == {str(number): code for number, code in enumerate(lines.values(), 1) if code}
