"""Reading the audit stream: what to ask, what a message means, when to reconnect and when to stop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import Literal, Protocol, TypeVar

import grpc
import grpc.aio

from . import _wire
from ._proto import audit_pb2 as audit_pb
from .audit import AuditEvent, AuditEventKind, AuditGap, Cursor, LogOpened, PolicyChange, Position
from .answers import OAuthClient
from .errors import AuditStopped

T_co = TypeVar("T_co", covariant=True)

STREAM = _wire.Method(
    "/scopeward.v1.AuditService/StreamAuditEvents", audit_pb.StreamAuditEventsRequest, audit_pb.StreamAuditEventsResponse
)

# A checkpoint comes every 15 seconds, so a stream that is silent for longer than this is dead.
SILENCE_SECONDS = 60.0
_FIRST_DELAY = 0.1
_LAST_DELAY = 1.0


class Stream(Protocol[T_co]):
    """An open call that sends messages."""

    def __iter__(self) -> Iterator[T_co]: ...
    def cancel(self) -> bool: ...


class Reader:
    """Where a reader is, and what the messages of a stream mean for that. Does no I/O but for the cursor's."""

    def __init__(
        self,
        cursor: Cursor | None,
        start: Literal["earliest", "latest"] | datetime,
        kinds: Iterable[AuditEventKind],
        audiences: Iterable[str] | str,
        follow: bool,
        addresses: int,
    ) -> None:
        if addresses != 1:
            raise ValueError("each server has an audit log of its own: read them one by one, with a cursor for each")
        self._cursor = cursor
        self._start = start
        self._kinds = [f"AUDIT_EVENT_KIND_{kind}" for kind in kinds]
        self._audiences = [audiences] if isinstance(audiences, str) else list(audiences)
        self.follow = follow
        self._position = cursor.load() if cursor is not None else None
        self._is_first = True
        self._delay = _FIRST_DELAY

    def question(self) -> audit_pb.StreamAuditEventsRequest:
        """What to ask for, from the position on. Begins a new stream."""
        self._is_first = True
        request = audit_pb.StreamAuditEventsRequest(
            kinds=self._kinds, audiences=map(_wire.wire_text, self._audiences), follow=self.follow
        )
        if self._position is not None:
            request.log_id, request.after_sequence = self._position
        elif isinstance(self._start, datetime):
            request.start_time.FromDatetime(self._start.astimezone(timezone.utc))
        elif self._start == "latest":
            request.position = audit_pb.AUDIT_START_LATEST
        else:
            request.position = audit_pb.AUDIT_START_EARLIEST
        return request

    def receive(
        self, message: audit_pb.StreamAuditEventsResponse
    ) -> tuple[AuditEvent | AuditGap | None, Position | None]:
        """What to hand out, if anything, and the position after it, if it is one."""
        is_first, self._is_first = self._is_first, False
        self._delay = _FIRST_DELAY
        kind = message.WhichOneof("message")
        if kind == "event":
            return _event(message.event), Position(message.event.log_id, message.event.sequence)
        if kind == "gap":
            return _gap(message.gap), Position(message.gap.log_id, message.gap.sequence)
        if kind == "checkpoint":
            # The first names the newest record, before anything was sent: a place to resume from only for who starts there.
            if is_first and not (self._start == "latest" and self._position is None):
                return None, None
            return None, Position(message.checkpoint.log_id, message.checkpoint.durable_sequence)
        return None, None

    def move(self, position: Position) -> None:
        """Everything up to here was handled."""
        if position == self._position:
            return
        if self._cursor is not None:
            self._cursor.save(position)
        self._position = position

    def delay(self, code: grpc.StatusCode, message: str | None, trailers: _wire.Trailers) -> float:
        """Seconds until the next try after an error.

        Raises:
            Unavailable: for what would pass, if the reader does not follow.
            AuditStopped: for what does not.
        """
        details = _wire.error_details(trailers)
        if code is not grpc.StatusCode.UNAVAILABLE:
            raise AuditStopped(
                message or "no details", code=code.name, reason=details.reason, metadata=details.metadata or {}
            )
        if not self.follow:
            raise _wire.unavailable("other", code, message, trailers)
        return self.next_delay(details.retry_after)

    def next_delay(self, retry_after: float | None = None) -> float:
        """Seconds until the next try: what the server says, or twice as long as before, up to a second."""
        delay, self._delay = self._delay, min(self._delay * 2, _LAST_DELAY)
        return delay if retry_after is None else retry_after


def read_blocking(
    reader: Reader, connect: Callable[[], Stream[audit_pb.StreamAuditEventsResponse]]
) -> Iterator[AuditEvent | AuditGap]:
    while True:
        stream = connect()
        with _SilenceWatch(stream) as watch:
            try:
                messages = iter(stream)
                while True:
                    with watch.waiting():
                        message = next(messages, None)
                    if message is None:
                        break
                    item, position = reader.receive(message)
                    if item is not None:
                        yield item
                    if position is not None:
                        reader.move(position)
                delay = reader.next_delay()
            except grpc.RpcError as error:
                code = grpc.StatusCode.UNAVAILABLE if watch.has_ended else error.code()
                delay = reader.delay(code, error.details(), error.trailing_metadata())
            finally:
                stream.cancel()
        if not reader.follow:
            return
        time.sleep(delay)


async def read_async(
    reader: Reader,
    connect: Callable[[], grpc.aio.UnaryStreamCall[audit_pb.StreamAuditEventsRequest, audit_pb.StreamAuditEventsResponse]],
) -> AsyncIterator[AuditEvent | AuditGap]:
    while True:
        stream = connect()
        try:
            while True:
                message = await asyncio.wait_for(stream.read(), SILENCE_SECONDS)
                if not isinstance(message, audit_pb.StreamAuditEventsResponse):
                    break
                item, position = reader.receive(message)
                if item is not None:
                    yield item
                if position is not None:
                    await asyncio.to_thread(reader.move, position)
            delay = reader.next_delay()
        except grpc.aio.AioRpcError as error:
            delay = reader.delay(error.code(), error.details(), error.trailing_metadata())
        except asyncio.TimeoutError:
            delay = reader.delay(grpc.StatusCode.UNAVAILABLE, "the stream was silent", None)
        finally:
            stream.cancel()
        if not reader.follow:
            return
        await asyncio.sleep(delay)


class _SilenceWatch:
    """Cancels a stream on which a reader has waited for too long."""

    def __init__(self, stream: Stream[object]) -> None:
        self._stream = stream
        self._changed = threading.Condition()
        self._waiting_since: float | None = None
        self._is_over = False
        self.has_ended = False
        """True once it has cancelled the stream."""

    def __enter__(self) -> _SilenceWatch:
        threading.Thread(target=self._watch, name="scopeward-audit-silence", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def waiting(self) -> _SilenceWatch._Waiting:
        return self._Waiting(self)

    def _watch(self) -> None:
        with self._changed:
            while not self._is_over:
                since = self._waiting_since
                if since is not None and time.monotonic() - since >= SILENCE_SECONDS:
                    self.has_ended = True
                    self._stream.cancel()
                    return
                self._changed.wait(SILENCE_SECONDS if since is None else since + SILENCE_SECONDS - time.monotonic())

    class _Waiting:
        def __init__(self, watch: _SilenceWatch) -> None:
            self._watch = watch

        def __enter__(self) -> None:
            self._watch._waiting_since = time.monotonic()

        def __exit__(self, *_: object) -> None:
            self._watch._waiting_since = None


def _event(event: audit_pb.AuditEvent) -> AuditEvent:
    change, opened = event.policy_change, event.log_opened
    return AuditEvent(
        log_id=event.log_id,
        sequence=event.sequence,
        event_id=event.event_id,
        event_time=_wire.when(event, "event_time"),
        kind=_wire.enum_name(audit_pb.AuditEventKind, "AUDIT_EVENT_KIND_", event.kind),
        decision_id=event.decision_id,
        method=event.method,
        audiences=tuple(event.audiences),
        asked_audiences=tuple(event.asked_audiences),
        client=OAuthClient(
            client_id=event.client.client_id,
            source=_wire.source_name(event.client.source),
            client_name=event.client.client_name,
            software_id=event.client.software_id,
            software_version=event.client.software_version,
            redirect_uris=tuple(event.client.redirect_uris),
            grant_types=tuple(event.client.grant_types),
            application_type=event.client.application_type,
        )
        if event.HasField("client")
        else None,
        client_truncated=event.client_truncated,
        requested_scope=event.requested_scope if event.HasField("requested_scope") else None,
        registered_scope=event.registered_scope if event.HasField("registered_scope") else None,
        granted_scope=event.granted_scope if event.HasField("granted_scope") else None,
        grant=_wire.grant_name(event.grant),
        effective_scope=event.effective_scope,
        added=_wire.added_scopes(event.added),
        refused=_wire.refused_scopes(event.refused),
        reason=_wire.reason_name(event.reason),
        policy=_wire.policy_version(event.policy),
        policy_change=PolicyChange(
            accepted=change.accepted,
            previous_digest=change.previous_digest,
            finding_count=change.finding_count,
            changes=tuple(change.changes),
            change_count=change.change_count,
            widening_count=change.widening_count,
        )
        if event.HasField("policy_change")
        else None,
        log_opened=LogOpened(opened.previous_log_id, opened.previous_sequence, opened.cause)
        if event.HasField("log_opened")
        else None,
        caller_name=event.caller.name,
        authenticated_by=event.caller.authenticated_by,
        peer=event.peer,
        trace_id=event.trace_id,
        attempt=event.attempt,
        correlation_id=event.correlation_id,
        prev_hash=event.prev_hash,
        hash=event.hash,
        _message=event,
    )


def _gap(gap: audit_pb.Gap) -> AuditGap:
    return AuditGap(
        log_id=gap.log_id,
        sequence=gap.sequence,
        count=gap.count,
        reason=gap.reason,
        first_time=_wire.when(gap, "first_time"),
        last_time=_wire.when(gap, "last_time"),
        reason_counts=dict(gap.reason_counts),
        _message=gap,
    )
