"""What the adapters of all servers have in common."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .answers import ClientSource

__all__ = ["assertion_claims", "granted_by", "login_id", "retry_after", "source_of"]


def login_id(*parameters: object) -> str:
    """One id for all requests of a login: the same for the GET and the POST of a consent page, and for a reload.

    Made of the parameters that the client sends with each of them: its id, the redirect URI, `state`, the code challenge, `nonce`.
    Client libraries make the last three new for each login.
    """
    joined = "\0".join("" if parameter is None else str(parameter) for parameter in parameters)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def source_of(client_id: str) -> ClientSource:
    """Where a client is from, as far as its id says: an https URL is a metadata document."""
    return "cimd" if client_id[:8].lower() == "https://" else "dcr"


def retry_after(status: int) -> dict[str, str]:
    """The header that tells a client when to come back (RFC 9110 section 10.2.3), for what passes by itself; none for another status."""
    return {"Retry-After": "1"} if status == 503 else {}


def assertion_claims(assertion: str) -> Mapping[str, Any]:
    """What a JWT says, unverified: enough to ask with, since the server verifies the same text before it issues anything."""
    try:
        payload = assertion.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, Mapping) else {}


def granted_by(claims: Mapping[str, Any]) -> str | None:
    """The scope that an assertion stands for; `None` if it names none. What is not understood stands for none."""
    found = [claims[name] for name in ("scope", "scp") if claims.get(name) is not None]
    if not found:
        return None
    scope = found[0]
    if isinstance(scope, list):
        return " ".join(item for item in scope if isinstance(item, str))
    return scope if isinstance(scope, str) else ""
