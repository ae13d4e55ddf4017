"""What is asked and what is answered, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .errors import PolicyVersion, RefusedScope

__all__ = [
    "AddedScope",
    "AudienceDescription",
    "AudienceGrant",
    "AuthorizeAnswer",
    "AuthorizeQuestion",
    "ClientSource",
    "OAuthClient",
    "RegistrationAnswer",
    "TokenAnswer",
    "TokenGrant",
    "TokenQuestion",
]

ClientSource = Literal["", "dcr", "cimd", "static"]
"""Where the authorization server knows a client from: dynamic registration, a metadata document, an operator; `""` is not said."""

TokenGrant = Literal["refresh", "client_credentials", "jwt_bearer", "token_exchange"]
"""What a client presents at the token endpoint: a refresh token, its own credentials, a JWT (RFC 7523), another token (RFC 8693)."""


@dataclass(frozen=True)
class OAuthClient:
    """The OAuth client, as it registered or as its metadata document says (RFC 7591 section 2).

    Send the same at all moments: a rule of the policy holds only for what is sent.
    """

    client_id: str = ""
    """Empty for a client that registers and has none yet."""
    source: ClientSource = ""
    client_name: str = ""
    software_id: str = ""
    software_version: str = ""
    redirect_uris: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = ()
    application_type: str = ""

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, Any], *, client_id: str = "", source: ClientSource = "dcr"
    ) -> OAuthClient:
        """Takes what matters from client metadata as received (RFC 7591); members that are not of their type are left out."""

        def text(name: str) -> str:
            value = metadata.get(name)
            return value if isinstance(value, str) else ""

        def texts(name: str) -> tuple[str, ...]:
            value = metadata.get(name)
            is_list = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
            return tuple(str(item) for item in value if not isinstance(item, (Mapping, list))) if is_list else ()  # type: ignore[union-attr]

        return cls(
            client_id=client_id,
            source=source,
            client_name=text("client_name"),
            software_id=text("software_id"),
            software_version=text("software_version"),
            redirect_uris=texts("redirect_uris"),
            grant_types=texts("grant_types"),
            application_type=text("application_type"),
        )


@dataclass(frozen=True)
class AuthorizeQuestion:
    """One check of a batch: the arguments of `check_authorize_scopes`."""

    scope: str | None = None
    registered_scope: str | None = None
    audiences: tuple[str, ...] = ()
    client: OAuthClient | None = None
    correlation_id: str = ""


@dataclass(frozen=True)
class TokenQuestion:
    """One check of a batch: the arguments of `check_token_scopes`."""

    grant: TokenGrant
    scope: str | None = None
    granted_scope: str | None = None
    registered_scope: str | None = None
    audiences: tuple[str, ...] = ()
    client: OAuthClient | None = None
    correlation_id: str = ""


@dataclass(frozen=True)
class AddedScope:
    """A scope that was granted although the client did not ask for it, or did not hold it."""

    scope: str
    origin: str
    """`BASELINE`, `DEFAULT`, `REGISTERED`, `STEP_UP` or `ALWAYS`. Newer servers may have more."""
    rule: str
    """The client rule that brought it; empty if none did."""


@dataclass(frozen=True)
class AudienceGrant:
    """What one audience grants."""

    audience: str
    """Spelled as in the policy."""
    scope: str


@dataclass(frozen=True)
class RegistrationAnswer:
    """What the client holds from now on."""

    scope: str
    """Store it with the client and return it to the client (RFC 7591 section 3.2.1). Never empty."""
    added: tuple[AddedScope, ...]
    refused: tuple[RefusedScope, ...]
    """What was asked for and dropped; empty unless the policy drops."""
    policy: PolicyVersion
    decision_id: str


@dataclass(frozen=True)
class AuthorizeAnswer:
    """What the authorize request gets."""

    scope: str
    """For the consent page and the code. Not for the stored client. Never empty."""
    added: tuple[AddedScope, ...]
    refused: tuple[RefusedScope, ...]
    """What was asked for and dropped; empty unless the policy drops."""
    audience_grants: tuple[AudienceGrant, ...]
    """Which audience grants which scopes. A grant must not be used at another audience."""
    effective_registered_scope: str
    """For a check of the server's own within this request. **Never store it**: a step-up would become a registration."""
    policy: PolicyVersion
    decision_id: str


@dataclass(frozen=True)
class TokenAnswer:
    """What a token gets at the token endpoint."""

    scope: str
    """For the access token, and for the response if it differs from what was asked (RFC 6749 section 5.1). Never empty."""
    refused: tuple[RefusedScope, ...]
    """What was asked for and dropped; empty unless the policy drops."""
    audience_grants: tuple[AudienceGrant, ...]
    """Which audience grants which scopes. A grant must not be used at another audience."""
    policy: PolicyVersion
    decision_id: str


@dataclass(frozen=True)
class AudienceDescription:
    """What the policy says about one audience."""

    audience: str
    scopes_supported: tuple[str, ...]
    advertised_scopes: tuple[str, ...]
    """What belongs into `scopes_supported` of discovery documents."""
    baseline_client_scopes: tuple[str, ...]
    default_client_scopes: tuple[str, ...]
    privileged_scopes: tuple[str, ...]
    step_up_scopes: tuple[str, ...]
    scope_matching: str
    scope_descriptions: Mapping[str, str]
    """Texts for consent pages, by scope."""
    description: str
    aliases: tuple[str, ...]
