from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    DECISION_ALLOW: _ClassVar[Decision]
    DECISION_DENY: _ClassVar[Decision]

class ClientSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLIENT_SOURCE_UNSPECIFIED: _ClassVar[ClientSource]
    CLIENT_SOURCE_DCR: _ClassVar[ClientSource]
    CLIENT_SOURCE_CIMD: _ClassVar[ClientSource]
    CLIENT_SOURCE_STATIC: _ClassVar[ClientSource]

class TokenGrant(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOKEN_GRANT_UNSPECIFIED: _ClassVar[TokenGrant]
    TOKEN_GRANT_REFRESH: _ClassVar[TokenGrant]
    TOKEN_GRANT_CLIENT_CREDENTIALS: _ClassVar[TokenGrant]
    TOKEN_GRANT_JWT_BEARER: _ClassVar[TokenGrant]
    TOKEN_GRANT_TOKEN_EXCHANGE: _ClassVar[TokenGrant]

class Origin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORIGIN_UNSPECIFIED: _ClassVar[Origin]
    ORIGIN_BASELINE: _ClassVar[Origin]
    ORIGIN_DEFAULT: _ClassVar[Origin]
    ORIGIN_REGISTERED: _ClassVar[Origin]
    ORIGIN_STEP_UP: _ClassVar[Origin]
    ORIGIN_ALWAYS: _ClassVar[Origin]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_MALFORMED: _ClassVar[Reason]
    REASON_FORBIDDEN: _ClassVar[Reason]
    REASON_UNSUPPORTED: _ClassVar[Reason]
    REASON_UNREGISTERED: _ClassVar[Reason]
    REASON_SCOPE_REQUIRED: _ClassVar[Reason]
    REASON_NOTHING_GRANTED: _ClassVar[Reason]
    REASON_AUDIENCE_UNKNOWN: _ClassVar[Reason]
    REASON_AUDIENCE_MALFORMED: _ClassVar[Reason]
    REASON_AUDIENCE_REQUIRED: _ClassVar[Reason]
    REASON_EXCEEDS_GRANT: _ClassVar[Reason]
    REASON_TOO_MANY_SCOPES: _ClassVar[Reason]
    REASON_CLIENT_TOO_LARGE: _ClassVar[Reason]
DECISION_UNSPECIFIED: Decision
DECISION_ALLOW: Decision
DECISION_DENY: Decision
CLIENT_SOURCE_UNSPECIFIED: ClientSource
CLIENT_SOURCE_DCR: ClientSource
CLIENT_SOURCE_CIMD: ClientSource
CLIENT_SOURCE_STATIC: ClientSource
TOKEN_GRANT_UNSPECIFIED: TokenGrant
TOKEN_GRANT_REFRESH: TokenGrant
TOKEN_GRANT_CLIENT_CREDENTIALS: TokenGrant
TOKEN_GRANT_JWT_BEARER: TokenGrant
TOKEN_GRANT_TOKEN_EXCHANGE: TokenGrant
ORIGIN_UNSPECIFIED: Origin
ORIGIN_BASELINE: Origin
ORIGIN_DEFAULT: Origin
ORIGIN_REGISTERED: Origin
ORIGIN_STEP_UP: Origin
ORIGIN_ALWAYS: Origin
REASON_UNSPECIFIED: Reason
REASON_MALFORMED: Reason
REASON_FORBIDDEN: Reason
REASON_UNSUPPORTED: Reason
REASON_UNREGISTERED: Reason
REASON_SCOPE_REQUIRED: Reason
REASON_NOTHING_GRANTED: Reason
REASON_AUDIENCE_UNKNOWN: Reason
REASON_AUDIENCE_MALFORMED: Reason
REASON_AUDIENCE_REQUIRED: Reason
REASON_EXCEEDS_GRANT: Reason
REASON_TOO_MANY_SCOPES: Reason
REASON_CLIENT_TOO_LARGE: Reason

class ExpandRegistrationScopesRequest(_message.Message):
    __slots__ = ("audiences", "scope", "client", "previous_scope", "correlation_id")
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_SCOPE_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    audiences: _containers.RepeatedScalarFieldContainer[str]
    scope: str
    client: Client
    previous_scope: str
    correlation_id: str
    def __init__(self, audiences: _Optional[_Iterable[str]] = ..., scope: _Optional[str] = ..., client: _Optional[_Union[Client, _Mapping]] = ..., previous_scope: _Optional[str] = ..., correlation_id: _Optional[str] = ...) -> None: ...

class ExpandRegistrationScopesResponse(_message.Message):
    __slots__ = ("decision", "scope", "added", "refused", "oauth_error", "policy", "decision_id", "reason")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    OAUTH_ERROR_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    scope: str
    added: _containers.RepeatedCompositeFieldContainer[AddedScope]
    refused: _containers.RepeatedCompositeFieldContainer[RefusedScope]
    oauth_error: OAuthError
    policy: PolicyVersion
    decision_id: str
    reason: Reason
    def __init__(self, decision: _Optional[_Union[Decision, str]] = ..., scope: _Optional[str] = ..., added: _Optional[_Iterable[_Union[AddedScope, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[RefusedScope, _Mapping]]] = ..., oauth_error: _Optional[_Union[OAuthError, _Mapping]] = ..., policy: _Optional[_Union[PolicyVersion, _Mapping]] = ..., decision_id: _Optional[str] = ..., reason: _Optional[_Union[Reason, str]] = ...) -> None: ...

class CheckAuthorizeScopesRequest(_message.Message):
    __slots__ = ("audiences", "scope", "registered_scope", "client", "correlation_id")
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    audiences: _containers.RepeatedScalarFieldContainer[str]
    scope: str
    registered_scope: str
    client: Client
    correlation_id: str
    def __init__(self, audiences: _Optional[_Iterable[str]] = ..., scope: _Optional[str] = ..., registered_scope: _Optional[str] = ..., client: _Optional[_Union[Client, _Mapping]] = ..., correlation_id: _Optional[str] = ...) -> None: ...

class CheckAuthorizeScopesResponse(_message.Message):
    __slots__ = ("decision", "scope", "added", "refused", "oauth_error", "policy", "decision_id", "reason", "effective_registered_scope", "audience_grants")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    OAUTH_ERROR_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_REGISTERED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_GRANTS_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    scope: str
    added: _containers.RepeatedCompositeFieldContainer[AddedScope]
    refused: _containers.RepeatedCompositeFieldContainer[RefusedScope]
    oauth_error: OAuthError
    policy: PolicyVersion
    decision_id: str
    reason: Reason
    effective_registered_scope: str
    audience_grants: _containers.RepeatedCompositeFieldContainer[AudienceGrant]
    def __init__(self, decision: _Optional[_Union[Decision, str]] = ..., scope: _Optional[str] = ..., added: _Optional[_Iterable[_Union[AddedScope, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[RefusedScope, _Mapping]]] = ..., oauth_error: _Optional[_Union[OAuthError, _Mapping]] = ..., policy: _Optional[_Union[PolicyVersion, _Mapping]] = ..., decision_id: _Optional[str] = ..., reason: _Optional[_Union[Reason, str]] = ..., effective_registered_scope: _Optional[str] = ..., audience_grants: _Optional[_Iterable[_Union[AudienceGrant, _Mapping]]] = ...) -> None: ...

class BatchCheckAuthorizeScopesRequest(_message.Message):
    __slots__ = ("checks",)
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[CheckAuthorizeScopesRequest]
    def __init__(self, checks: _Optional[_Iterable[_Union[CheckAuthorizeScopesRequest, _Mapping]]] = ...) -> None: ...

class BatchCheckAuthorizeScopesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchCheckResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchCheckResult, _Mapping]]] = ...) -> None: ...

class CheckTokenScopesRequest(_message.Message):
    __slots__ = ("audiences", "scope", "granted_scope", "registered_scope", "client", "grant", "correlation_id")
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    GRANTED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    audiences: _containers.RepeatedScalarFieldContainer[str]
    scope: str
    granted_scope: str
    registered_scope: str
    client: Client
    grant: TokenGrant
    correlation_id: str
    def __init__(self, audiences: _Optional[_Iterable[str]] = ..., scope: _Optional[str] = ..., granted_scope: _Optional[str] = ..., registered_scope: _Optional[str] = ..., client: _Optional[_Union[Client, _Mapping]] = ..., grant: _Optional[_Union[TokenGrant, str]] = ..., correlation_id: _Optional[str] = ...) -> None: ...

class CheckTokenScopesResponse(_message.Message):
    __slots__ = ("decision", "scope", "refused", "oauth_error", "policy", "decision_id", "reason", "audience_grants")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    OAUTH_ERROR_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_GRANTS_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    scope: str
    refused: _containers.RepeatedCompositeFieldContainer[RefusedScope]
    oauth_error: OAuthError
    policy: PolicyVersion
    decision_id: str
    reason: Reason
    audience_grants: _containers.RepeatedCompositeFieldContainer[AudienceGrant]
    def __init__(self, decision: _Optional[_Union[Decision, str]] = ..., scope: _Optional[str] = ..., refused: _Optional[_Iterable[_Union[RefusedScope, _Mapping]]] = ..., oauth_error: _Optional[_Union[OAuthError, _Mapping]] = ..., policy: _Optional[_Union[PolicyVersion, _Mapping]] = ..., decision_id: _Optional[str] = ..., reason: _Optional[_Union[Reason, str]] = ..., audience_grants: _Optional[_Iterable[_Union[AudienceGrant, _Mapping]]] = ...) -> None: ...

class BatchCheckTokenScopesRequest(_message.Message):
    __slots__ = ("checks",)
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[CheckTokenScopesRequest]
    def __init__(self, checks: _Optional[_Iterable[_Union[CheckTokenScopesRequest, _Mapping]]] = ...) -> None: ...

class BatchCheckTokenScopesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchCheckTokenResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchCheckTokenResult, _Mapping]]] = ...) -> None: ...

class DescribeAudienceRequest(_message.Message):
    __slots__ = ("audience", "page_size", "page_token")
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    audience: str
    page_size: int
    page_token: str
    def __init__(self, audience: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class DescribeAudienceResponse(_message.Message):
    __slots__ = ("audiences", "next_page_token", "policy")
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    audiences: _containers.RepeatedCompositeFieldContainer[AudienceDescription]
    next_page_token: str
    policy: PolicyVersion
    def __init__(self, audiences: _Optional[_Iterable[_Union[AudienceDescription, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., policy: _Optional[_Union[PolicyVersion, _Mapping]] = ...) -> None: ...

class Client(_message.Message):
    __slots__ = ("client_id", "source", "client_name", "software_id", "software_version", "redirect_uris", "grant_types", "application_type")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_ID_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_URIS_FIELD_NUMBER: _ClassVar[int]
    GRANT_TYPES_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_TYPE_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    source: ClientSource
    client_name: str
    software_id: str
    software_version: str
    redirect_uris: _containers.RepeatedScalarFieldContainer[str]
    grant_types: _containers.RepeatedScalarFieldContainer[str]
    application_type: str
    def __init__(self, client_id: _Optional[str] = ..., source: _Optional[_Union[ClientSource, str]] = ..., client_name: _Optional[str] = ..., software_id: _Optional[str] = ..., software_version: _Optional[str] = ..., redirect_uris: _Optional[_Iterable[str]] = ..., grant_types: _Optional[_Iterable[str]] = ..., application_type: _Optional[str] = ...) -> None: ...

class AddedScope(_message.Message):
    __slots__ = ("scope", "origin", "rule")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    scope: str
    origin: Origin
    rule: str
    def __init__(self, scope: _Optional[str] = ..., origin: _Optional[_Union[Origin, str]] = ..., rule: _Optional[str] = ...) -> None: ...

class RefusedScope(_message.Message):
    __slots__ = ("scope", "reason", "message")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    scope: str
    reason: Reason
    message: str
    def __init__(self, scope: _Optional[str] = ..., reason: _Optional[_Union[Reason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class OAuthError(_message.Message):
    __slots__ = ("error", "error_description")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ERROR_DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    error: str
    error_description: str
    def __init__(self, error: _Optional[str] = ..., error_description: _Optional[str] = ...) -> None: ...

class PolicyVersion(_message.Message):
    __slots__ = ("generation", "digest")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    generation: int
    digest: str
    def __init__(self, generation: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class AudienceGrant(_message.Message):
    __slots__ = ("audience", "scope")
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    audience: str
    scope: str
    def __init__(self, audience: _Optional[str] = ..., scope: _Optional[str] = ...) -> None: ...

class AudienceDescription(_message.Message):
    __slots__ = ("audience", "scopes_supported", "baseline_client_scopes", "default_client_scopes", "scope_matching", "privileged_scopes", "step_up_scopes", "advertised_scopes", "scope_descriptions", "description", "aliases")
    class ScopeDescriptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_SUPPORTED_FIELD_NUMBER: _ClassVar[int]
    BASELINE_CLIENT_SCOPES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_CLIENT_SCOPES_FIELD_NUMBER: _ClassVar[int]
    SCOPE_MATCHING_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGED_SCOPES_FIELD_NUMBER: _ClassVar[int]
    STEP_UP_SCOPES_FIELD_NUMBER: _ClassVar[int]
    ADVERTISED_SCOPES_FIELD_NUMBER: _ClassVar[int]
    SCOPE_DESCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    audience: str
    scopes_supported: _containers.RepeatedScalarFieldContainer[str]
    baseline_client_scopes: _containers.RepeatedScalarFieldContainer[str]
    default_client_scopes: _containers.RepeatedScalarFieldContainer[str]
    scope_matching: str
    privileged_scopes: _containers.RepeatedScalarFieldContainer[str]
    step_up_scopes: _containers.RepeatedScalarFieldContainer[str]
    advertised_scopes: _containers.RepeatedScalarFieldContainer[str]
    scope_descriptions: _containers.ScalarMap[str, str]
    description: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, audience: _Optional[str] = ..., scopes_supported: _Optional[_Iterable[str]] = ..., baseline_client_scopes: _Optional[_Iterable[str]] = ..., default_client_scopes: _Optional[_Iterable[str]] = ..., scope_matching: _Optional[str] = ..., privileged_scopes: _Optional[_Iterable[str]] = ..., step_up_scopes: _Optional[_Iterable[str]] = ..., advertised_scopes: _Optional[_Iterable[str]] = ..., scope_descriptions: _Optional[_Mapping[str, str]] = ..., description: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchCheckResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: CheckAuthorizeScopesResponse
    error: CheckError
    def __init__(self, response: _Optional[_Union[CheckAuthorizeScopesResponse, _Mapping]] = ..., error: _Optional[_Union[CheckError, _Mapping]] = ...) -> None: ...

class BatchCheckTokenResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: CheckTokenScopesResponse
    error: CheckError
    def __init__(self, response: _Optional[_Union[CheckTokenScopesResponse, _Mapping]] = ..., error: _Optional[_Union[CheckError, _Mapping]] = ...) -> None: ...

class CheckError(_message.Message):
    __slots__ = ("code", "reason", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
