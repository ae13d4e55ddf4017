"""Runs an example server that is a program of its own for the harness, as `python_server.py` does for those of Python.

Prints its port and paths as one line of JSON, and ends the program when its standard input ends.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
FOSITE = Path(os.environ.get("E2E_VENVS", HERE / ".venvs"), "fosite-example")


def command(arguments: argparse.Namespace) -> list[str]:
    # A busy machine may take a second for an answer, and no case is about that.
    words = [str(FOSITE), "-listen", "127.0.0.1:0", "-scopeward", arguments.target, "-deadline", "3s"]
    words += ["-base", arguments.base] if arguments.base else []
    return words + (["-document", arguments.document] if arguments.document else [])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["fosite"])
    parser.add_argument("--target", required=True)
    parser.add_argument("--base", help="where its clients reach it, if not at its own port")
    parser.add_argument("--resource", help="is not needed: these servers learn it from requests and from the policy")
    parser.add_argument("--document", help="the client metadata document, as JSON")
    parser.add_argument("--fault", choices=["none"], default="none")
    arguments = parser.parse_args()

    with subprocess.Popen(command(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        ready = json.loads(program.stdout.readline())
        port = urllib.parse.urlsplit(ready.pop("url")).port
        print(json.dumps({"port": port, **ready}), flush=True)
        sys.stdin.read()
        program.terminate()


if __name__ == "__main__":
    main()
