"""How to reach the service: what a target may be, and what a channel is told."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import grpc

from .errors import QuestionKind, Unavailable

if TYPE_CHECKING:
    PathText = str | os.PathLike[str]

_HINT = "write it as HOST:PORT, http://HOST:PORT, https://HOST:PORT, unix:/PATH or dns:///NAME:PORT"

# Only UNAVAILABLE is safe to ask again and passes by itself. The deadline holds for all attempts together.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [
                {"service": "scopeward.v1.ScopePolicyService"},
                {"service": "scopeward.v1.PolicyStatusService", "method": "GetPolicyStatus"},
            ],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}

_OPTIONS: list[tuple[str, str | int]] = [
    # After an outage the library would wait up to two minutes before it connects again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # What a connection may take, handshake included, before it is given up: no back-off, whatever its name says.
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # Notices a peer that is gone without a word, while a call or a stream is open.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # The service is a neighbour; a proxy for the way to the internet is none for it.
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
]


@dataclass(frozen=True)
class Endpoint:
    """Where the service is, checked."""

    target: str
    """As gRPC wants it."""
    is_tls: bool
    is_local: bool
    """A loopback address or a unix socket: nothing leaves the machine."""
    addresses: int


def parse_target(target: str | Sequence[str]) -> Endpoint:
    """The endpoint that the text or texts name.

    Raises:
        ValueError: for what is no target, or for several that are not IP addresses of one kind.
    """
    if isinstance(target, str):
        return _parse_one(target)
    if not target:
        raise ValueError(f"no target; {_HINT}")
    endpoints = [_parse_one(item) for item in target]
    if len(endpoints) == 1:
        return endpoints[0]
    if len({endpoint.is_tls for endpoint in endpoints}) != 1:
        raise ValueError("several targets are either all https:// or none")
    kinds = {endpoint.target.partition(":")[0] for endpoint in endpoints}
    if kinds not in ({"ipv4"}, {"ipv6"}):
        raise ValueError(
            "several targets have to be IP addresses of one kind; for names use one dns:///NAME:PORT that has several addresses"
        )
    kind = kinds.pop()
    return Endpoint(
        target=f"{kind}:" + ",".join(endpoint.target.partition(":")[2] for endpoint in endpoints),
        is_tls=endpoints[0].is_tls,
        is_local=all(endpoint.is_local for endpoint in endpoints),
        addresses=len(endpoints),
    )


def _parse_one(text: str) -> Endpoint:
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("//") else path
        if not path:
            raise ValueError(f"`{text}` has no path; {_HINT}")
        return Endpoint(f"unix:{path}", is_tls=False, is_local=True, addresses=1)
    is_dns = text.startswith("dns:///")
    rest = text.removeprefix("dns:///") if is_dns else text
    whole = rest if "://" in rest else f"http://{rest}"
    try:
        url = urlsplit(whole)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise ValueError(f"`{text}` is not a target: {error}; {_HINT}") from None
    if url.scheme not in ("http", "https") or not host or url.username is not None:
        raise ValueError(f"`{text}` is not a target; {_HINT}")
    if port is None or url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError(f"`{text}` needs a port and has no path; {_HINT}")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return Endpoint(f"dns:///{host}:{port}", url.scheme == "https", host == "localhost", addresses=1)
    name = f"ipv4:{host}:{port}" if address.version == 4 else f"ipv6:[{host}]:{port}"
    return Endpoint(name, url.scheme == "https", address.is_loopback, addresses=1)


@dataclass(frozen=True)
class Connection:
    """All that a channel and its calls need. Nothing is read or opened before the first call."""

    endpoint: Endpoint
    tls_ca_file: PathText | None
    tls_cert_file: PathText | None
    tls_private_key_file: PathText | None
    server_name: str | None
    token: str | None
    token_file: PathText | None

    def __post_init__(self) -> None:
        if self.token is not None and self.token_file is not None:
            raise ValueError("a token is given as `token` or as `token_file`, not as both")
        has_token = self.token is not None or self.token_file is not None
        if has_token and not self.endpoint.is_tls and not self.endpoint.is_local:
            raise ValueError("a token does not travel in plaintext to another machine; use https://")
        if (self.tls_cert_file is None) != (self.tls_private_key_file is None):
            raise ValueError("`tls_cert_file` and `tls_private_key_file` are given together")
        files = (self.tls_ca_file, self.tls_cert_file)
        if self.endpoint.is_tls and self.endpoint.addresses > 1 and self.server_name is None:
            raise ValueError("several https:// addresses need the `server_name` that their certificates have")
        if not self.endpoint.is_tls and any(file is not None for file in files):
            raise ValueError("TLS files are for https:// targets")

    def files(self) -> tuple[tuple[int, int, int], ...]:
        """Changes when a TLS file does."""
        named = (self.tls_ca_file, self.tls_cert_file, self.tls_private_key_file)
        stats = [os.stat(file) for file in named if file is not None]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)

    def options(self) -> list[tuple[str, str | int]]:
        options = list(_OPTIONS)
        if self.server_name is not None:
            options += [("grpc.ssl_target_name_override", self.server_name), ("grpc.default_authority", self.server_name)]
        elif self.endpoint.target.startswith("unix:") or self.endpoint.addresses > 1:
            # The library would send all addresses as one authority, which is none.
            options.append(("grpc.default_authority", "localhost"))
        return options

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Raises `OSError` for a file that cannot be read."""

        def read(file: PathText | None) -> bytes | None:
            if file is None:
                return None
            with open(file, "rb") as opened:
                return opened.read()

        if not self.endpoint.is_tls:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=read(self.tls_ca_file),
            private_key=read(self.tls_private_key_file),
            certificate_chain=read(self.tls_cert_file),
        )

    def metadata(self, kind: QuestionKind) -> tuple[tuple[str, str], ...]:
        """The metadata of a call. A token file is read each time, so that a new token counts at once."""
        token = self.token
        if self.token_file is not None:
            try:
                with open(self.token_file, encoding="ascii") as file:
                    token = file.read().strip()
            except (OSError, ValueError) as error:
                raise Unavailable(f"could not read the token file: {error}", code="UNAUTHENTICATED", kind=kind) from error
        return () if token is None else (("authorization", f"Bearer {token}"),)
