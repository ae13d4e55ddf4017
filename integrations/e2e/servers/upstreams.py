"""Authorization servers that ask nobody, and the gateway that stands before one of them: each a process on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "python" / part) for part in ("tests", "examples")]

from service import binary  # noqa: E402

VENVS = Path(os.environ.get("E2E_VENVS", HERE.parent / ".venvs"))


def free_port() -> int:
    """Below those that the system gives to connections: for programs that cannot say which port they got."""
    for _ in range(50):
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("no free port")


class Program:
    """A process with all that it starts."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: subprocess.Popen[str] | None = None

    def run(self, command: list[str], **environment: str) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SCOPEWARD_")}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log.open("a"),
            text=True,
            env=clean | environment,
            start_new_session=True,
        )
        return self.process

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, how)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None

    def until(self, url: str) -> None:
        """Waits until that is answered with 200."""
        for _ in range(1200):
            assert self.process is not None
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=60) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"{url} does not answer\n{self.log.read_text()[-4000:]}")


def keycloak_home() -> Path:
    """Keycloak of the version that the executor is tested with, which Maven downloads the first time."""
    module = HERE.parents[1] / "java/scopeward-keycloak/pom.xml"
    version = re.search(r"<keycloak.version>(.*)</keycloak.version>", module.read_text())
    assert version
    home = VENVS / f"keycloak/keycloak-{version[1]}"
    if not (home / "bin/kc.sh").exists():
        artifact = f"org.keycloak:keycloak-quarkus-dist:{version[1]}:zip"
        command = ["mvn", "-B", "-q", "-ntp", "org.apache.maven.plugins:maven-dependency-plugin:3.9.0:unpack"]
        command += [f"-Dartifact={artifact}", f"-DoutputDirectory={home.parent}"]
        subprocess.run(command, check=True, stdout=sys.stderr, cwd=VENVS)
    return home


class Hydra(Program):
    """Ory Hydra, with a login and consent app that agrees to everything. Clients see it at `base`."""

    kind = "hydra"
    paths = {"register": "/oauth2/register", "authorize": "/oauth2/auth", "token": "/oauth2/token"}

    def __init__(self, folder: Path, base: str | None = None, dsn: str = "memory") -> None:
        super().__init__(folder / "hydra.log")
        self._folder = folder
        self._dsn = dsn
        self.takes_one_login_at_a_time = dsn == "memory"
        self.url, self.admin, app = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
        self.base = self.issuer = base or self.url
        self._app = app

    def start(self) -> None:
        public, admin, app = (int(url.rpartition(":")[2]) for url in (self.url, self.admin, self._app))
        settings = {
            "dsn": self._dsn,
            "secrets": {"system": ["a-secret-of-tests-for-tests-only"]},
            "serve": {"public": {"host": "127.0.0.1", "port": public}, "admin": {"host": "127.0.0.1", "port": admin}},
            "urls": {"self": {"issuer": self.issuer}, "login": f"{self._app}/login", "consent": f"{self._app}/consent"},
            "oidc": {"dynamic_client_registration": {"enabled": True}},
            "webfinger": {"oidc_discovery": {"client_registration_url": f"{self.issuer}/oauth2/register"}},
            "log": {"level": "warn"},
        }
        config = self._folder / "hydra.json"
        config.write_text(json.dumps(settings))
        if self._dsn != "memory":
            command = [str(VENVS / "hydra/hydra"), "migrate", "sql", "-e", "--yes"]
            subprocess.run(command, env={**os.environ, "DSN": self._dsn}, check=True, capture_output=True)
        self.run([str(HERE / "hydra/run.sh"), str(config), f"127.0.0.1:{app}", self.admin], HYDRA_BIN=str(VENVS / "hydra"))
        self.until(f"{self.url}/health/ready")
        # It makes its keys at the first request that needs them, which may take longer than it lets a request take.
        self.until(f"{self.url}/.well-known/jwks.json")

    def admin_arguments(self) -> list[str]:
        """For a gateway that may change its clients."""
        return ["--upstream-admin", f"hydra+{self.admin}"]

    def without_consent(self, client_id: str) -> None:
        """Nothing is needed for many logins at once."""

    def stored(self, client_id: str) -> set[str]:
        """What it lets the client ask for. Nothing is there twice."""
        with urllib.request.urlopen(f"{self.admin}/admin/clients/{client_id}", timeout=60) as answer:
            scopes = json.load(answer)["scope"].split()
        assert len(set(scopes)) == len(scopes), scopes
        return set(scopes)


class Keycloak(Program):
    """Keycloak as it is distributed, with one realm. Clients see it at `base`."""

    kind = "keycloak"
    takes_one_login_at_a_time = False
    paths = {
        "issuer": "/realms/mcp",
        "register": "/realms/mcp/clients-registrations/openid-connect",
        "authorize": "/realms/mcp/protocol/openid-connect/auth",
        "token": "/realms/mcp/protocol/openid-connect/token",
    }
    scopes = "openid profile email offline_access mcp:read mcp:write admin root"

    def __init__(self, folder: Path, base: str | None = None, *options: str, document_host: str = "") -> None:
        """With `options` of its own. Clients may have metadata documents at `document_host`."""
        super().__init__(folder / "keycloak.log")
        self._options = [option for option in options if not option.startswith("-D")]
        self._java = [option for option in options if option.startswith("-D")]
        self._document_host = document_host
        self.url = f"http://127.0.0.1:{free_port()}"
        self.base = base or self.url
        self.issuer = self.base + self.paths["issuer"]
        self._credentials = folder / "keycloak-credentials"
        self._credentials.write_text("gateway:a-secret-of-tests\n")
        self._credentials.chmod(0o600)

    def start(self) -> None:
        command = [str(keycloak_home() / "bin/kc.sh"), "start-dev", "--db=dev-mem", "--http-host=127.0.0.1"]
        command += ["--http-port", self.url.rpartition(":")[2], "--hostname", self.base, *self._options]
        if self._document_host:
            command.append("--features=cimd")
        process = self.run(
            command,
            KC_BOOTSTRAP_ADMIN_USERNAME="admin",
            KC_BOOTSTRAP_ADMIN_PASSWORD="admin",
            JAVA_OPTS_APPEND=" ".join(["-XX:TieredStopAtLevel=1", *self._java]),
        )
        assert process.stdout is not None
        log = []
        for line in process.stdout:
            log.append(line)
            if "Listening on:" in line:
                break
        else:
            raise RuntimeError("Keycloak ended\n" + "".join(log))
        # Nobody else reads on.
        threading.Thread(target=self._log, args=[process.stdout], daemon=True).start()
        realm = {"KEYCLOAK_URL": self.url, "REALM": "mcp", "SCOPES": self.scopes, "EXECUTOR": "", "DEMO_USER": "tester"}
        realm["SERVICE_ACCOUNT"] = self._credentials.read_text().strip()
        # mcp-remote says that its page is there.
        realm["TRUSTED_HOSTS"] = "localhost 127.0.0.1 github.com"
        # The redirect URI of a document is on loopback.
        realm["DOCUMENT_HOSTS"] = f"{self._document_host} 127.0.0.1" if self._document_host else ""
        script = HERE.parents[1] / "java/scopeward-keycloak/examples/realm.sh"
        subprocess.run([script], env={**os.environ, **realm}, check=True, stdout=self.log.open("a"))

    def admin_arguments(self) -> list[str]:
        """For a gateway that may change its clients."""
        return ["--upstream-admin", f"keycloak+{self.url}", "--upstream-admin-credentials-file", str(self._credentials)]

    def stored(self, client_id: str) -> set[str]:
        """What it lets the client ask for."""
        (client,) = self._admin("GET", f"clients?clientId={client_id}")
        return set(client["optionalClientScopes"])

    def without_consent(self, client_id: str) -> None:
        """Two first logins of one user and client at once make two consents there, and none works after that."""
        (client,) = self._admin("GET", f"clients?clientId={client_id}")
        self._admin("PUT", f"clients/{client['id']}", {**client, "consentRequired": False})

    def offer(self, *scopes: str) -> None:
        """Clients that say nothing of scopes, as those with metadata documents, may ask for these."""
        ids = {scope["name"]: scope["id"] for scope in self._admin("GET", "client-scopes")}
        for scope in scopes:
            self._admin("PUT", f"default-optional-client-scopes/{ids[scope]}")

    def _admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "admin"}
        with urllib.request.urlopen(f"{self.url}/realms/master/protocol/openid-connect/token", urlencode(form).encode()) as answer:
            headers = {"Authorization": f"Bearer {json.load(answer)['access_token']}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/admin/realms/mcp/{path}", content, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "null")

    def _log(self, output: IO[str]) -> None:
        with self.log.open("a") as log:
            log.writelines(output)


class PostgreSQL(Program):
    """An empty database: the memory of Hydra does not take logins at the same time."""

    @staticmethod
    def is_installed() -> bool:
        return any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "postgresql.log")
        # In no folder that only its owner may enter.
        self._folder = tempfile.TemporaryDirectory(prefix="scopeward-e2e-postgresql-")
        self._data = Path(self._folder.name) / "data"
        self._port = free_port()
        self.dsn = f"postgres://hydra@127.0.0.1:{self._port}/postgres?sslmode=disable&max_conns=50"

    def start(self) -> None:
        (programs,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
        self._data.mkdir()
        # It does not run as root.
        other: list[str] = []
        if os.geteuid() == 0:
            other = ["setpriv", "--reuid=nobody", "--clear-groups"]
            self._data.parent.chmod(0o711)
            shutil.chown(self._data, "nobody")
        self.run([*other, str(programs / "initdb"), "-D", str(self._data), "-U", "hydra", "-A", "trust", "--no-sync"]).communicate()
        options = {"listen_addresses": "127.0.0.1", "port": str(self._port), "unix_socket_directories": "", "fsync": "off"}
        self.run([*other, str(programs / "postgres"), "-D", str(self._data), *(f"--{name}={value}" for name, value in options.items())])
        for _ in range(600):
            if subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._port)]).returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL does not answer\n{self.log.read_text()[-4000:]}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        super().stop(how)
        self._folder.cleanup()


class Gateway(Program):
    """`scopeward gateway` before an upstream, which decides by the policies of a folder. Clients see it at the base of the upstream."""

    def __init__(self, folder: Path, upstream: Hydra | Keycloak, policies: Path, *arguments: str, is_public: bool = False) -> None:
        super().__init__(folder / "gateway.log")
        # At the base itself, or something else passes on from there.
        self.url = upstream.base if is_public else f"http://127.0.0.1:{free_port()}"
        self.admin = ""
        self._command = [binary(), "gateway", "--listen", self.url.removeprefix("http://"), "--public-url", upstream.base]
        if path := upstream.paths.get("issuer"):
            self._command += ["--issuer-path", path]
        self._command += ["--upstream", upstream.url, "--upstream-kind", upstream.kind, *arguments]
        self._command += ["--policies", str(policies), "--state-dir", str(folder / "gateway-state")]
        self._command += ["--admin-listen", "127.0.0.1:0", "--debounce", "10ms", "--removal-quiet", "20ms"]

    def start(self) -> None:
        """Waits until it is ready."""
        output = self.run(self._command).stdout
        assert output is not None
        for line in output:
            if found := re.search(r"ready: .*admin=(\S+)", line):
                self.admin = f"http://{found[1]}"
                break
        else:
            raise RuntimeError(f"the gateway ended\n{self.log.read_text()[-4000:]}")
        self.until(f"{self.admin}/readyz")

    def reloads(self) -> int:
        """How many policies it took over since it started."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=10) as answer:
            found = re.search(r'scopeward_policy_reloads_total\{result="accepted"\} (\d+)', answer.read().decode())
        assert found
        return int(found[1])


UPSTREAMS: dict[str, type[Hydra] | type[Keycloak]] = {"hydra": Hydra, "keycloak": Keycloak}
