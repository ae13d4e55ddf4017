"""What the audit log says, and where a reader of it is."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from .answers import AddedScope, OAuthClient, TokenGrant
from .errors import PolicyVersion, RefusedScope

if TYPE_CHECKING:
    from ._channel import PathText

__all__ = ["AuditEvent", "AuditEventKind", "AuditGap", "Cursor", "FileCursor", "LogOpened", "PolicyChange", "Position"]

AuditEventKind = Literal["EXPANSION", "DENIAL", "POLICY_CHANGE", "LOG_OPENED", "ACCESS_CHANGE"]


class Position(NamedTuple):
    """A place in one audit log: after the record of this sequence."""

    log_id: str
    sequence: int


class Cursor(Protocol):
    """Keeps where a reader is. Write one of your own to keep it in a database, in one transaction with what you store."""

    def load(self) -> Position | None:
        """The position kept, or `None` at first."""

    def save(self, position: Position) -> None:
        """Replaces it. Called after the event was handled."""


class FileCursor:
    """Keeps the position in a file, in the form of `scopeward audit tail --cursor-file`."""

    def __init__(self, path: PathText) -> None:
        self._path = Path(path)

    def load(self) -> Position | None:
        """Raises `ValueError` for a file that is no cursor: starting from the beginning would hide that."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            cursor = json.loads(text)
            return Position(str(cursor["log_id"]), int(cursor["sequence"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self._path} is no cursor: {error}") from error

    def save(self, position: Position) -> None:
        """Replaces the file in one step: a new file, synced, renamed over the old one."""
        fresh = self._path.with_name(self._path.name + ".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(position._asdict(), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


@dataclass(frozen=True)
class PolicyChange:
    """A change, or a refused change, of the policy or of the access file."""

    accepted: bool
    previous_digest: str
    finding_count: int
    changes: tuple[str, ...]
    """What changed, in words: at most the first 50."""
    change_count: int
    widening_count: int


@dataclass(frozen=True)
class LogOpened:
    """A new log that continues a damaged or missing one."""

    previous_log_id: str
    previous_sequence: int
    cause: str


class _Line:
    _message: Message

    def as_dict(self) -> dict[str, Any]:
        """The members of the JSON line that `scopeward audit tail --output json` prints: hashes in hexadecimal digits."""
        members: dict[str, Any] = MessageToDict(self._message, always_print_fields_with_no_presence=True)
        for name in {"prevHash", "hash"} & members.keys():
            members[name] = base64.b64decode(members[name]).hex()
        return members


@dataclass(frozen=True)
class AuditEvent(_Line):
    """One audited decision or policy change."""

    log_id: str
    sequence: int
    event_id: str
    """A UUIDv7, the same if the event is delivered again."""
    event_time: datetime | None
    kind: str
    """`EXPANSION`, `DENIAL`, `POLICY_CHANGE`, `LOG_OPENED`, `ACCESS_CHANGE`. Newer servers may have more."""
    decision_id: str
    method: str
    audiences: tuple[str, ...]
    asked_audiences: tuple[str, ...]
    client: OAuthClient | None
    """As the client claims to be."""
    client_truncated: bool
    requested_scope: str | None
    registered_scope: str | None
    granted_scope: str | None
    """At the token endpoint, what the grant stood for."""
    grant: TokenGrant | None
    """At the token endpoint, what the client presented."""
    effective_scope: str
    added: tuple[AddedScope, ...]
    refused: tuple[RefusedScope, ...]
    reason: str
    policy: PolicyVersion
    policy_change: PolicyChange | None
    log_opened: LogOpened | None
    caller_name: str
    authenticated_by: str
    peer: str
    trace_id: str
    attempt: int
    correlation_id: str
    prev_hash: bytes
    hash: bytes
    _message: Message = field(repr=False, compare=False)


@dataclass(frozen=True)
class AuditGap(_Line):
    """Events that could not be recorded. Alert on it."""

    log_id: str
    sequence: int
    count: int
    """How many are missing."""
    reason: str
    first_time: datetime | None
    last_time: datetime | None
    reason_counts: Mapping[str, int]
    """How many of them by reason of the denial; empty if they are no denials."""
    _message: Message = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """As for an event, in a member `gap`."""
        return {"gap": super().as_dict()}
