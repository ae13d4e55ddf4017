"""The state of the policy, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .errors import PolicyVersion

__all__ = ["AudienceStatus", "Condition", "Finding", "PolicyAttempt", "PolicyStatus"]


@dataclass(frozen=True)
class Condition:
    """Something that is true or false of the server or an audience, such as `PolicyAccepted`."""

    type: str
    status: str
    """`True`, `False` or `Unknown`."""
    reason: str
    message: str
    observed_generation: int
    last_transition_time: datetime | None


@dataclass(frozen=True)
class Finding:
    """One problem at one place of a policy file."""

    file: str
    line: int
    column: int
    code: str
    severity: str
    audience: str
    value: str
    message: str
    suggestion: str


@dataclass(frozen=True)
class PolicyAttempt:
    """One try to make a policy of the files."""

    attempt_time: datetime | None
    accepted: bool
    digest: str
    findings: tuple[Finding, ...]
    finding_count: int


@dataclass(frozen=True)
class AudienceStatus:
    """The conditions of one audience."""

    audience: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class PolicyStatus:
    """Which policy serves, and what the last attempt to change it came to."""

    active: PolicyVersion | None
    """`None` before the first policy."""
    load_time: datetime | None
    source: str
    audience_count: int
    last_attempt: PolicyAttempt | None
    conditions: tuple[Condition, ...]
    audience_statuses: tuple[AudienceStatus, ...]
    """Those in trouble first; at most 1000."""
    audience_status_count: int
