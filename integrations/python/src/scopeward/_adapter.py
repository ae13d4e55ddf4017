"""What the adapters of all servers have in common."""

from __future__ import annotations

import hashlib

from .answers import ClientSource

__all__ = ["login_id", "source_of"]


def login_id(*parameters: str | None) -> str:
    """One id for all requests of a login: the same for the GET and the POST of a consent page, and for a reload.

    Made of the parameters that the client sends with each of them: its id, the redirect URI, `state`, the code challenge, `nonce`.
    Client libraries make the last three new for each login.
    """
    joined = "\0".join("" if parameter is None else parameter for parameter in parameters)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def source_of(client_id: str) -> ClientSource:
    """Where a client is from, as far as its id says: an https URL is a metadata document."""
    return "cimd" if client_id[:8].lower() == "https://" else "dcr"
