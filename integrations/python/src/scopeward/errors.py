"""What a question can come to other than a grant.

`Denied` is an answer: the policy says no, and the OAuth error is ready to be sent. `Unavailable` means that there is no answer:
the login fails as well, and never with `invalid_scope`, since the client asked nothing wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["AuditStopped", "Denied", "PolicyVersion", "RefusedScope", "ScopewardError", "Unavailable"]

QuestionKind = Literal["registration", "authorize", "token", "other"]

# What passes by itself. All other codes want a person.
_TRANSIENT = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED"})
_DESCRIPTION = "the scope policy could not be asked; try again later"


@dataclass(frozen=True)
class RefusedScope:
    """A scope that was asked for and not granted."""

    scope: str
    """The token as received."""
    reason: str
    """Why: `UNSUPPORTED`, `FORBIDDEN`, `UNREGISTERED`, `EXCEEDS_GRANT`, `MALFORMED`, … Newer servers may have more."""
    message: str
    """The same for people. May change; `reason` does not."""


@dataclass(frozen=True)
class PolicyVersion:
    """The policy set that decided."""

    generation: int
    """Counts the accepted sets of one server process, from 1."""
    digest: str
    """`sha256:` and 64 hex digits; equal on all servers with equal policies."""


class ScopewardError(Exception):
    """Common to all errors of this package."""


class _OAuthFailure(ScopewardError):
    """An error with an OAuth error to send to the client."""

    error: str
    error_description: str
    http_status: int

    def oauth_error(self) -> dict[str, str]:
        """The members of an OAuth error response or redirect: `error` and `error_description`."""
        return {"error": self.error, "error_description": self.error_description}


class Denied(_OAuthFailure):
    """The policy says no.

    At registration and at the token endpoint answer HTTP 400 with `oauth_error()`; at authorize redirect with it, after the redirect
    URI was validated.
    """

    http_status = 400

    def __init__(
        self,
        *,
        error: str,
        error_description: str,
        reason: str,
        refused: tuple[RefusedScope, ...],
        policy: PolicyVersion,
        decision_id: str,
    ) -> None:
        super().__init__(f"{error}: {error_description}")
        self.error = error
        """`invalid_scope` or `invalid_target`, at registration `invalid_client_metadata`."""
        self.error_description = error_description
        """At most 512 bytes of printable ASCII without quote and backslash."""
        self.reason = reason
        """Why the whole was denied, such as `UNSUPPORTED`."""
        self.refused = refused
        """Every scope that was refused; `error_description` may name fewer."""
        self.policy = policy
        self.decision_id = decision_id
        """Names this answer in the audit log."""


class Unavailable(_OAuthFailure):
    """There is no answer: the service is down, slow, not allowed to this caller, or not understood.

    Deny the login or the token. Never fall back to the registered scopes, to an earlier answer, or to a grant.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        kind: QuestionKind = "other",
        reason: str = "",
        metadata: dict[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        is_transient = code in _TRANSIENT and reason != "ANSWER_TOO_LARGE"
        self.error = "temporarily_unavailable" if is_transient and kind != "registration" else "server_error"
        """`temporarily_unavailable` or `server_error`. Registration knows only the latter, with `http_status` 503 or 500."""
        self.error_description = _DESCRIPTION
        """Has nothing of the cause, which is for the server's own log: `str(error)`."""
        self.http_status = 503 if is_transient else 500
        self.code = code
        """The gRPC code, such as `DEADLINE_EXCEEDED`; `UNKNOWN` for an answer that is not understood."""
        self.reason = reason
        """The stable reason of the service, such as `POLICY_NOT_LOADED`. Empty if the service did not say."""
        self.metadata = metadata or {}
        """What belongs to the reason, such as `field` or `oldest_sequence`."""
        self.retry_after = retry_after
        """Seconds to wait before asking again, if the service said so."""


class AuditStopped(ScopewardError):
    """The audit stream cannot continue by itself; a person has to look.

    By `code`: `OUT_OF_RANGE`, retention has deleted what the cursor wants (`oldest_sequence` and `newest_sequence` are in
    `metadata`); `INVALID_ARGUMENT` with `LOG_ID_FOREIGN`, the log is another one; `DATA_LOSS`, the chain is broken; any other
    code that waiting does not change.
    """

    def __init__(self, message: str, *, code: str, reason: str, metadata: dict[str, str]) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.reason = reason
        self.metadata = metadata
