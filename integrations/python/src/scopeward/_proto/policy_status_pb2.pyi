from google.protobuf import timestamp_pb2 as _timestamp_pb2
from . import scope_policy_pb2 as _scope_policy_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ShadowDifferenceKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHADOW_DIFFERENCE_KIND_UNSPECIFIED: _ClassVar[ShadowDifferenceKind]
    SHADOW_DIFFERENCE_KIND_ALLOW_TO_DENY: _ClassVar[ShadowDifferenceKind]
    SHADOW_DIFFERENCE_KIND_DENY_TO_ALLOW: _ClassVar[ShadowDifferenceKind]
    SHADOW_DIFFERENCE_KIND_WIDER: _ClassVar[ShadowDifferenceKind]
    SHADOW_DIFFERENCE_KIND_NARROWER: _ClassVar[ShadowDifferenceKind]
    SHADOW_DIFFERENCE_KIND_OTHER: _ClassVar[ShadowDifferenceKind]
SHADOW_DIFFERENCE_KIND_UNSPECIFIED: ShadowDifferenceKind
SHADOW_DIFFERENCE_KIND_ALLOW_TO_DENY: ShadowDifferenceKind
SHADOW_DIFFERENCE_KIND_DENY_TO_ALLOW: ShadowDifferenceKind
SHADOW_DIFFERENCE_KIND_WIDER: ShadowDifferenceKind
SHADOW_DIFFERENCE_KIND_NARROWER: ShadowDifferenceKind
SHADOW_DIFFERENCE_KIND_OTHER: ShadowDifferenceKind

class GetPolicyStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPolicyStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: PolicyStatus
    def __init__(self, status: _Optional[_Union[PolicyStatus, _Mapping]] = ...) -> None: ...

class WatchPolicyStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchPolicyStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: PolicyStatus
    def __init__(self, status: _Optional[_Union[PolicyStatus, _Mapping]] = ...) -> None: ...

class GetShadowReportRequest(_message.Message):
    __slots__ = ("max_differences",)
    MAX_DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    max_differences: int
    def __init__(self, max_differences: _Optional[int] = ...) -> None: ...

class GetShadowReportResponse(_message.Message):
    __slots__ = ("shadow", "serving", "start_time", "compared_count", "dropped_count", "difference_counts", "differences")
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    COMPARED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    shadow: PolicyStatus
    serving: _scope_policy_pb2.PolicyVersion
    start_time: _timestamp_pb2.Timestamp
    compared_count: int
    dropped_count: int
    difference_counts: _containers.RepeatedCompositeFieldContainer[ShadowDifferenceCount]
    differences: _containers.RepeatedCompositeFieldContainer[ShadowDifference]
    def __init__(self, shadow: _Optional[_Union[PolicyStatus, _Mapping]] = ..., serving: _Optional[_Union[_scope_policy_pb2.PolicyVersion, _Mapping]] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., compared_count: _Optional[int] = ..., dropped_count: _Optional[int] = ..., difference_counts: _Optional[_Iterable[_Union[ShadowDifferenceCount, _Mapping]]] = ..., differences: _Optional[_Iterable[_Union[ShadowDifference, _Mapping]]] = ...) -> None: ...

class ShadowDifferenceCount(_message.Message):
    __slots__ = ("kind", "count")
    KIND_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    kind: ShadowDifferenceKind
    count: int
    def __init__(self, kind: _Optional[_Union[ShadowDifferenceKind, str]] = ..., count: _Optional[int] = ...) -> None: ...

class ShadowDifference(_message.Message):
    __slots__ = ("kind", "decision_time", "decision_id", "method", "audiences", "client_id", "requested_scope", "registered_scope", "serving", "shadow", "truncated", "granted_scope", "grant")
    KIND_FIELD_NUMBER: _ClassVar[int]
    DECISION_TIME_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    kind: ShadowDifferenceKind
    decision_time: _timestamp_pb2.Timestamp
    decision_id: str
    method: str
    audiences: _containers.RepeatedScalarFieldContainer[str]
    client_id: str
    requested_scope: str
    registered_scope: str
    serving: ShadowAnswer
    shadow: ShadowAnswer
    truncated: bool
    granted_scope: str
    grant: _scope_policy_pb2.TokenGrant
    def __init__(self, kind: _Optional[_Union[ShadowDifferenceKind, str]] = ..., decision_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., decision_id: _Optional[str] = ..., method: _Optional[str] = ..., audiences: _Optional[_Iterable[str]] = ..., client_id: _Optional[str] = ..., requested_scope: _Optional[str] = ..., registered_scope: _Optional[str] = ..., serving: _Optional[_Union[ShadowAnswer, _Mapping]] = ..., shadow: _Optional[_Union[ShadowAnswer, _Mapping]] = ..., truncated: bool = ..., granted_scope: _Optional[str] = ..., grant: _Optional[_Union[_scope_policy_pb2.TokenGrant, str]] = ...) -> None: ...

class ShadowAnswer(_message.Message):
    __slots__ = ("decision", "scope", "reason", "policy")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    decision: _scope_policy_pb2.Decision
    scope: str
    reason: _scope_policy_pb2.Reason
    policy: _scope_policy_pb2.PolicyVersion
    def __init__(self, decision: _Optional[_Union[_scope_policy_pb2.Decision, str]] = ..., scope: _Optional[str] = ..., reason: _Optional[_Union[_scope_policy_pb2.Reason, str]] = ..., policy: _Optional[_Union[_scope_policy_pb2.PolicyVersion, _Mapping]] = ...) -> None: ...

class PolicyStatus(_message.Message):
    __slots__ = ("active", "load_time", "source", "audience_count", "last_attempt", "conditions", "audience_statuses", "audience_status_count")
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    LOAD_TIME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_STATUSES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_STATUS_COUNT_FIELD_NUMBER: _ClassVar[int]
    active: _scope_policy_pb2.PolicyVersion
    load_time: _timestamp_pb2.Timestamp
    source: str
    audience_count: int
    last_attempt: PolicyAttempt
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    audience_statuses: _containers.RepeatedCompositeFieldContainer[AudienceStatus]
    audience_status_count: int
    def __init__(self, active: _Optional[_Union[_scope_policy_pb2.PolicyVersion, _Mapping]] = ..., load_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., source: _Optional[str] = ..., audience_count: _Optional[int] = ..., last_attempt: _Optional[_Union[PolicyAttempt, _Mapping]] = ..., conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ..., audience_statuses: _Optional[_Iterable[_Union[AudienceStatus, _Mapping]]] = ..., audience_status_count: _Optional[int] = ...) -> None: ...

class PolicyAttempt(_message.Message):
    __slots__ = ("attempt_time", "accepted", "digest", "findings", "finding_count")
    ATTEMPT_TIME_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    FINDING_COUNT_FIELD_NUMBER: _ClassVar[int]
    attempt_time: _timestamp_pb2.Timestamp
    accepted: bool
    digest: str
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    finding_count: int
    def __init__(self, attempt_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., accepted: bool = ..., digest: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., finding_count: _Optional[int] = ...) -> None: ...

class AudienceStatus(_message.Message):
    __slots__ = ("audience", "conditions")
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    audience: str
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    def __init__(self, audience: _Optional[str] = ..., conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("type", "status", "reason", "message", "observed_generation", "last_transition_time")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    LAST_TRANSITION_TIME_FIELD_NUMBER: _ClassVar[int]
    type: str
    status: str
    reason: str
    message: str
    observed_generation: int
    last_transition_time: _timestamp_pb2.Timestamp
    def __init__(self, type: _Optional[str] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., observed_generation: _Optional[int] = ..., last_transition_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("file", "line", "column", "code", "severity", "audience", "value", "message", "suggestion")
    FILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SUGGESTION_FIELD_NUMBER: _ClassVar[int]
    file: str
    line: int
    column: int
    code: str
    severity: str
    audience: str
    value: str
    message: str
    suggestion: str
    def __init__(self, file: _Optional[str] = ..., line: _Optional[int] = ..., column: _Optional[int] = ..., code: _Optional[str] = ..., severity: _Optional[str] = ..., audience: _Optional[str] = ..., value: _Optional[str] = ..., message: _Optional[str] = ..., suggestion: _Optional[str] = ...) -> None: ...
