"""Runs Keycloak with the executor for the harness, as `program_server.py` does for other programs.

The jar and the server are those that Maven builds and unpacks for the executor's own tests, and its example script sets up the realm.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTEGRATIONS = Path(__file__).resolve().parents[2]
MODULE = INTEGRATIONS / "java/scopeward-keycloak"
sys.path[:0] = [str(INTEGRATIONS / "python/tests")]

from certificates import Authority  # noqa: E402

# `email` is one that Keycloak gives to every client: the script takes it from the realm's defaults, as it does with those of the policy.
SCOPES = "openid profile email offline_access mcp:read mcp:write admin root"
PASSWORD = "admin"
LISTENING = re.compile(r"Listening on: http://127\.0\.0\.1:([0-9]+)")


def installed() -> Path:
    """Keycloak, with the executor among its providers."""
    jar = MODULE / "target/scopeward-keycloak.jar"
    if not jar.exists() or not list(MODULE.glob("target/keycloak/keycloak-*/bin/kc.sh")):
        command = ["mvn", "-B", "-q", "-ntp", "-f", str(MODULE.parent), "-pl", MODULE.name, "-am"]
        subprocess.run(
            [*command, "-DskipTests", "-Dmaven.javadoc.skip", "pre-integration-test"], check=True, stdout=sys.stderr
        )
    (home,) = MODULE.glob("target/keycloak/keycloak-*")
    shutil.copy(jar, home / "providers")
    return home


@contextmanager
def documents(folder: Path, document: str) -> Iterator[list[str]]:
    """Serves a client metadata document at its URL, as a proxy; the options of Keycloak by which it reads it there."""
    host = str(urllib.parse.urlsplit(json.loads(document)["client_id"]).hostname)
    authority = Authority(folder, "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", host))
    body = document.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"

    class Tunnel(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            _read_head(self.request)
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with context.wrap_socket(self.request, server_side=True) as tls:
                _read_head(tls)
                tls.sendall(head.encode() + body)

    # Keycloak looks the host up itself, and takes no address of a private network.
    hosts = folder / "hosts"
    hosts.write_text(f"203.0.113.1 {host}\n127.0.0.1 localhost\n")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield [
            f"-Djdk.net.hosts.file={hosts}",
            f"--truststore-paths={authority.file}",
            f"--spi-connections-http-client--default--proxy-mappings={re.escape(host)};http://127.0.0.1:{server.server_address[1]}",
        ]
        server.shutdown()


def _read_head(connection: socket.socket) -> None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        received = connection.recv(4096)
        if not received:
            return
        head += received


def set_up(url: str, arguments: argparse.Namespace) -> None:
    """The realm. Its issuer is the base, so the script asks at the port itself."""
    environment = {
        "KEYCLOAK_URL": url,
        "ADMIN_PASSWORD": PASSWORD,
        "SCOPES": SCOPES,
        "AUDIENCES": arguments.resource,
        # The last one is where mcp-remote says that it is from.
        "TRUSTED_HOSTS": "localhost 127.0.0.1 github.com",
        "DOCUMENT_HOSTS": "client.example.com 127.0.0.1" if arguments.document else "",
        # A busy machine may take a second for an answer, and no case is about that.
        "DEADLINE": "3s",
        "DEMO_USER": "tester",
    }
    subprocess.run([MODULE / "examples/realm.sh"], env={**os.environ, **environment}, check=True, stdout=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--base", required=True, help="where its clients reach it")
    parser.add_argument("--resource", default="")
    parser.add_argument("--document", help="the client metadata document, as JSON")
    parser.add_argument("--fault", choices=["none"], default="none")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="scopeward-e2e-keycloak-") as folder:
        if arguments.document is None:
            run([], arguments)
        else:
            with documents(Path(folder), arguments.document) as options:
                run(options, arguments)


def run(options: list[str], arguments: argparse.Namespace) -> None:
    java = [option for option in options if option.startswith("-D")]
    command = [
        str(installed() / "bin/kc.sh"),
        *("start-dev", "--db=dev-mem", "--http-host=127.0.0.1", "--http-port=0", "--features=cimd"),
        *("--hostname", arguments.base, "--hostname-backchannel-dynamic=true"),
        f"--spi-client-policy-executor--scopeward--target={arguments.target}",
        *(option for option in options if option not in java),
    ]
    environment = {
        "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
        "KC_BOOTSTRAP_ADMIN_PASSWORD": PASSWORD,
        "JAVA_OPTS_APPEND": " ".join(["-XX:TieredStopAtLevel=1", *java]),
    }
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        log = []
        for line in server.stdout:
            log.append(line)
            if listening := LISTENING.search(line):
                break
        else:
            sys.exit("Keycloak did not start:\n" + "".join(log))
        # Nobody else reads on.
        threading.Thread(target=server.stdout.read, daemon=True).start()
        try:
            set_up(f"http://127.0.0.1:{listening[1]}", arguments)
            ready = {
                "port": int(listening[1]),
                "issuer": "/realms/mcp",
                "register": "/realms/mcp/clients-registrations/openid-connect",
                "authorize": "/realms/mcp/protocol/openid-connect/auth",
                "token": "/realms/mcp/protocol/openid-connect/token",
            }
            print(json.dumps(ready), flush=True)
            sys.stdin.read()
        finally:
            # It has nothing to lose, and takes long to stop on a busy machine.
            server.kill()


if __name__ == "__main__":
    main()
