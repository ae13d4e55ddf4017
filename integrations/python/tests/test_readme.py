"""The README is true: its commands run in a fresh environment, and its code is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pages


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
