"""Each example runs in one command."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from pages import PACKAGE
from servers import SERVERS
from service import binary

PRINTED = [
    "holds `openid offline_access`",
    "gets `openid offline_access`",
    "gets `openid offline_access`",
    "gets `openid mcp:write`",
    "invalid_scope: scope forbidden: root",
    "invalid_scope: scope not registered for this client: profile",
    "gets `openid mcp:read offline_access`",
]


@pytest.mark.parametrize("name", SERVERS)
def test_the_example_runs(name: str) -> None:
    environment = {**os.environ, "SCOPEWARD_BIN": binary()}
    command = [sys.executable, str(PACKAGE / "examples" / f"{name}.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^\d\. .*-> (.*)$", done.stdout, re.MULTILINE) == PRINTED
