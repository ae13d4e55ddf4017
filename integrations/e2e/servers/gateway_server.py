"""Runs an authorization server that asks nobody, behind `scopeward gateway`, for the harness.

Prints its port and paths as one line of JSON. Then each line of its standard input is a command that is answered by a line: `stop` kills
the gateway, `start` starts it again at the same place, `reloads` says how many policies it took over. It ends when its standard input
does. E2E_POLICIES is the folder of the policy.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from upstreams import UPSTREAMS, Gateway


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(UPSTREAMS))
    parser.add_argument("--target", help="is not needed: the gateway decides itself")
    parser.add_argument("--base", required=True, help="where its clients reach it")
    parser.add_argument("--resource", help="is not needed")
    parser.add_argument("--document", help="is not needed: the server takes no metadata documents")
    parser.add_argument("--fault", choices=["none", "no-adapter"], default="none")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="scopeward-e2e-gateway-") as name:
        folder = Path(name)
        upstream = UPSTREAMS[arguments.name](folder, arguments.base)
        gateway = Gateway(folder, upstream, Path(os.environ["E2E_POLICIES"]), *upstream.admin_arguments())
        is_gateway = arguments.fault == "none"
        try:
            upstream.start()
            if is_gateway:
                gateway.start()
            url = gateway.url if is_gateway else upstream.url
            ready = {"port": int(url.rpartition(":")[2]), "is_gateway": is_gateway, **upstream.paths}
            print(json.dumps(ready), flush=True)
            for line in sys.stdin:
                print(commanded(gateway, line.strip()), flush=True)
        finally:
            gateway.stop()
            upstream.stop()


def commanded(gateway: Gateway, command: str) -> str:
    match command:
        case "stop":
            gateway.stop(signal.SIGKILL)
        case "start":
            gateway.start()
        case "reloads":
            return str(gateway.reloads())
    return "ok"


if __name__ == "__main__":
    main()
