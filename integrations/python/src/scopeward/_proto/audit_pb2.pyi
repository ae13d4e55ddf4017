from google.protobuf import timestamp_pb2 as _timestamp_pb2
from . import scope_policy_pb2 as _scope_policy_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AuditStart(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIT_START_UNSPECIFIED: _ClassVar[AuditStart]
    AUDIT_START_EARLIEST: _ClassVar[AuditStart]
    AUDIT_START_LATEST: _ClassVar[AuditStart]

class AuditEventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIT_EVENT_KIND_UNSPECIFIED: _ClassVar[AuditEventKind]
    AUDIT_EVENT_KIND_EXPANSION: _ClassVar[AuditEventKind]
    AUDIT_EVENT_KIND_DENIAL: _ClassVar[AuditEventKind]
    AUDIT_EVENT_KIND_POLICY_CHANGE: _ClassVar[AuditEventKind]
    AUDIT_EVENT_KIND_LOG_OPENED: _ClassVar[AuditEventKind]
    AUDIT_EVENT_KIND_ACCESS_CHANGE: _ClassVar[AuditEventKind]
AUDIT_START_UNSPECIFIED: AuditStart
AUDIT_START_EARLIEST: AuditStart
AUDIT_START_LATEST: AuditStart
AUDIT_EVENT_KIND_UNSPECIFIED: AuditEventKind
AUDIT_EVENT_KIND_EXPANSION: AuditEventKind
AUDIT_EVENT_KIND_DENIAL: AuditEventKind
AUDIT_EVENT_KIND_POLICY_CHANGE: AuditEventKind
AUDIT_EVENT_KIND_LOG_OPENED: AuditEventKind
AUDIT_EVENT_KIND_ACCESS_CHANGE: AuditEventKind

class StreamAuditEventsRequest(_message.Message):
    __slots__ = ("after_sequence", "position", "start_time", "log_id", "kinds", "audiences", "follow")
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    after_sequence: int
    position: AuditStart
    start_time: _timestamp_pb2.Timestamp
    log_id: str
    kinds: _containers.RepeatedScalarFieldContainer[AuditEventKind]
    audiences: _containers.RepeatedScalarFieldContainer[str]
    follow: bool
    def __init__(self, after_sequence: _Optional[int] = ..., position: _Optional[_Union[AuditStart, str]] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., log_id: _Optional[str] = ..., kinds: _Optional[_Iterable[_Union[AuditEventKind, str]]] = ..., audiences: _Optional[_Iterable[str]] = ..., follow: bool = ...) -> None: ...

class StreamAuditEventsResponse(_message.Message):
    __slots__ = ("event", "checkpoint", "gap")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    event: AuditEvent
    checkpoint: Checkpoint
    gap: Gap
    def __init__(self, event: _Optional[_Union[AuditEvent, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., gap: _Optional[_Union[Gap, _Mapping]] = ...) -> None: ...

class AuditEvent(_message.Message):
    __slots__ = ("log_id", "sequence", "event_id", "event_time", "kind", "decision_id", "method", "audiences", "client", "requested_scope", "registered_scope", "effective_scope", "added", "refused", "reason", "policy", "policy_change", "caller", "peer", "trace_id", "attempt", "client_truncated", "prev_hash", "hash", "asked_audiences", "correlation_id", "log_opened", "granted_scope", "grant")
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_SCOPE_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_CHANGE_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    PREV_HASH_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    ASKED_AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    LOG_OPENED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    sequence: int
    event_id: str
    event_time: _timestamp_pb2.Timestamp
    kind: AuditEventKind
    decision_id: str
    method: str
    audiences: _containers.RepeatedScalarFieldContainer[str]
    client: _scope_policy_pb2.Client
    requested_scope: str
    registered_scope: str
    effective_scope: str
    added: _containers.RepeatedCompositeFieldContainer[_scope_policy_pb2.AddedScope]
    refused: _containers.RepeatedCompositeFieldContainer[_scope_policy_pb2.RefusedScope]
    reason: _scope_policy_pb2.Reason
    policy: _scope_policy_pb2.PolicyVersion
    policy_change: PolicyChange
    caller: Caller
    peer: str
    trace_id: str
    attempt: int
    client_truncated: bool
    prev_hash: bytes
    hash: bytes
    asked_audiences: _containers.RepeatedScalarFieldContainer[str]
    correlation_id: str
    log_opened: LogOpened
    granted_scope: str
    grant: _scope_policy_pb2.TokenGrant
    def __init__(self, log_id: _Optional[str] = ..., sequence: _Optional[int] = ..., event_id: _Optional[str] = ..., event_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[AuditEventKind, str]] = ..., decision_id: _Optional[str] = ..., method: _Optional[str] = ..., audiences: _Optional[_Iterable[str]] = ..., client: _Optional[_Union[_scope_policy_pb2.Client, _Mapping]] = ..., requested_scope: _Optional[str] = ..., registered_scope: _Optional[str] = ..., effective_scope: _Optional[str] = ..., added: _Optional[_Iterable[_Union[_scope_policy_pb2.AddedScope, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[_scope_policy_pb2.RefusedScope, _Mapping]]] = ..., reason: _Optional[_Union[_scope_policy_pb2.Reason, str]] = ..., policy: _Optional[_Union[_scope_policy_pb2.PolicyVersion, _Mapping]] = ..., policy_change: _Optional[_Union[PolicyChange, _Mapping]] = ..., caller: _Optional[_Union[Caller, _Mapping]] = ..., peer: _Optional[str] = ..., trace_id: _Optional[str] = ..., attempt: _Optional[int] = ..., client_truncated: bool = ..., prev_hash: _Optional[bytes] = ..., hash: _Optional[bytes] = ..., asked_audiences: _Optional[_Iterable[str]] = ..., correlation_id: _Optional[str] = ..., log_opened: _Optional[_Union[LogOpened, _Mapping]] = ..., granted_scope: _Optional[str] = ..., grant: _Optional[_Union[_scope_policy_pb2.TokenGrant, str]] = ...) -> None: ...

class LogOpened(_message.Message):
    __slots__ = ("previous_log_id", "previous_sequence", "previous_hash", "cause")
    PREVIOUS_LOG_ID_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_HASH_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    previous_log_id: str
    previous_sequence: int
    previous_hash: bytes
    cause: str
    def __init__(self, previous_log_id: _Optional[str] = ..., previous_sequence: _Optional[int] = ..., previous_hash: _Optional[bytes] = ..., cause: _Optional[str] = ...) -> None: ...

class PolicyChange(_message.Message):
    __slots__ = ("accepted", "previous_digest", "finding_count", "changes", "change_count", "widening_count")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FINDING_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    CHANGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    WIDENING_COUNT_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    previous_digest: str
    finding_count: int
    changes: _containers.RepeatedScalarFieldContainer[str]
    change_count: int
    widening_count: int
    def __init__(self, accepted: bool = ..., previous_digest: _Optional[str] = ..., finding_count: _Optional[int] = ..., changes: _Optional[_Iterable[str]] = ..., change_count: _Optional[int] = ..., widening_count: _Optional[int] = ...) -> None: ...

class Caller(_message.Message):
    __slots__ = ("name", "authenticated_by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATED_BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    authenticated_by: str
    def __init__(self, name: _Optional[str] = ..., authenticated_by: _Optional[str] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("log_id", "durable_sequence", "head_hash", "server_time")
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    DURABLE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEAD_HASH_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    durable_sequence: int
    head_hash: bytes
    server_time: _timestamp_pb2.Timestamp
    def __init__(self, log_id: _Optional[str] = ..., durable_sequence: _Optional[int] = ..., head_hash: _Optional[bytes] = ..., server_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("log_id", "sequence", "count", "reason", "first_time", "last_time", "reason_counts")
    class ReasonCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIRST_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_TIME_FIELD_NUMBER: _ClassVar[int]
    REASON_COUNTS_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    sequence: int
    count: int
    reason: str
    first_time: _timestamp_pb2.Timestamp
    last_time: _timestamp_pb2.Timestamp
    reason_counts: _containers.ScalarMap[str, int]
    def __init__(self, log_id: _Optional[str] = ..., sequence: _Optional[int] = ..., count: _Optional[int] = ..., reason: _Optional[str] = ..., first_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., last_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., reason_counts: _Optional[_Mapping[str, int]] = ...) -> None: ...
