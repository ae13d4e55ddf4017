"""Between the plain data of this package and the messages of the service: no I/O, used by both clients."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from ._proto import policy_status_pb2 as status_pb
from ._proto import scope_policy_pb2 as pb
from .answers import (
    AddedScope,
    AudienceDescription,
    AudienceGrant,
    AuthorizeAnswer,
    AuthorizeQuestion,
    ClientSource,
    OAuthClient,
    RegistrationAnswer,
    TokenAnswer,
    TokenGrant,
    TokenQuestion,
)
from .errors import Denied, PolicyVersion, QuestionKind, RefusedScope, Unavailable
from .status import AudienceStatus, Condition, Finding, PolicyAttempt, PolicyStatus

Trailers = Iterable[Any] | None
"""Pairs of a key and a value."""

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
T = TypeVar("T")

# Clients choose their scope and metadata, and the service denies what is too much of them; but a message of more than 256 KiB it
# does not read. So what is larger than this is cut to something that is surely denied as well.
_LARGE = 96 * 1024
_CLIENT_BYTES = 64 * 1024
_SCOPE_TOKENS = 256
_SCOPE_TOKEN_BYTES = 512

_GRANTS: dict[TokenGrant, pb.TokenGrant] = {
    "refresh": pb.TOKEN_GRANT_REFRESH,
    "client_credentials": pb.TOKEN_GRANT_CLIENT_CREDENTIALS,
    "jwt_bearer": pb.TOKEN_GRANT_JWT_BEARER,
    "token_exchange": pb.TOKEN_GRANT_TOKEN_EXCHANGE,
}

# The first version of the service that has `CheckTokenScopes`.
_TOKENS_SINCE = "0.1.0"

_SOURCES: dict[ClientSource, pb.ClientSource] = {
    "": pb.CLIENT_SOURCE_UNSPECIFIED,
    "dcr": pb.CLIENT_SOURCE_DCR,
    "cimd": pb.CLIENT_SOURCE_CIMD,
    "static": pb.CLIENT_SOURCE_STATIC,
}


@dataclass(frozen=True)
class Method(Generic[Q, A]):
    """One RPC, and how its errors are to be told to a client."""

    path: str
    question: type[Q]
    answer: type[A]
    kind: QuestionKind = "other"


EXPAND = Method(
    "/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes",
    pb.ExpandRegistrationScopesRequest,
    pb.ExpandRegistrationScopesResponse,
    "registration",
)
CHECK = Method(
    "/scopeward.v1.ScopePolicyService/CheckAuthorizeScopes",
    pb.CheckAuthorizeScopesRequest,
    pb.CheckAuthorizeScopesResponse,
    "authorize",
)
BATCH = Method(
    "/scopeward.v1.ScopePolicyService/BatchCheckAuthorizeScopes",
    pb.BatchCheckAuthorizeScopesRequest,
    pb.BatchCheckAuthorizeScopesResponse,
    "authorize",
)
TOKEN = Method(
    "/scopeward.v1.ScopePolicyService/CheckTokenScopes",
    pb.CheckTokenScopesRequest,
    pb.CheckTokenScopesResponse,
    "token",
)
BATCH_TOKEN = Method(
    "/scopeward.v1.ScopePolicyService/BatchCheckTokenScopes",
    pb.BatchCheckTokenScopesRequest,
    pb.BatchCheckTokenScopesResponse,
    "token",
)
DESCRIBE = Method(
    "/scopeward.v1.ScopePolicyService/DescribeAudience", pb.DescribeAudienceRequest, pb.DescribeAudienceResponse
)
STATUS = Method(
    "/scopeward.v1.PolicyStatusService/GetPolicyStatus",
    status_pb.GetPolicyStatusRequest,
    status_pb.GetPolicyStatusResponse,
)
WATCH_STATUS = Method(
    "/scopeward.v1.PolicyStatusService/WatchPolicyStatus",
    status_pb.WatchPolicyStatusRequest,
    status_pb.WatchPolicyStatusResponse,
)


# Questions


def wire_text(text: str) -> str:
    """The text with U+FFFD for what has no UTF-8 (a lone surrogate, as JSON may have): outside every grammar, so refused."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _wire_scope(scope: str) -> str:
    text = wire_text(scope)
    if len(text.encode()) <= _LARGE:
        return text
    tokens = [token for token in text.split(" ") if token]
    return " ".join(token[: _SCOPE_TOKEN_BYTES + 1] for token in tokens[: _SCOPE_TOKENS + 1])


def _wire_audiences(audiences: Iterable[str] | str) -> list[str]:
    if isinstance(audiences, str):
        audiences = [audiences]
    return [wire_text(audience) for audience in audiences]


def _wire_client(client: OAuthClient) -> pb.Client:
    message = pb.Client(
        client_id=wire_text(client.client_id),
        source=_SOURCES[client.source],
        client_name=wire_text(client.client_name),
        software_id=wire_text(client.software_id),
        software_version=wire_text(client.software_version),
        redirect_uris=map(wire_text, client.redirect_uris),
        grant_types=map(wire_text, client.grant_types),
        application_type=wire_text(client.application_type),
    )
    if message.ByteSize() <= _LARGE:
        return message
    return pb.Client(
        client_id=message.client_id[:_SCOPE_TOKEN_BYTES],
        source=message.source,
        client_name=message.client_name[:_SCOPE_TOKEN_BYTES].ljust(_CLIENT_BYTES + 1, "."),
    )


def expand_question(
    scope: str | None,
    client: OAuthClient | None,
    audiences: Iterable[str] | str,
    previous_scope: str | None,
    correlation_id: str,
) -> pb.ExpandRegistrationScopesRequest:
    return pb.ExpandRegistrationScopesRequest(
        audiences=_wire_audiences(audiences),
        scope=None if scope is None else _wire_scope(scope),
        client=None if client is None else _wire_client(client),
        previous_scope=None if previous_scope is None else wire_text(previous_scope),
        correlation_id=wire_text(correlation_id),
    )


def check_question(question: AuthorizeQuestion) -> pb.CheckAuthorizeScopesRequest:
    registered = question.registered_scope
    return pb.CheckAuthorizeScopesRequest(
        audiences=_wire_audiences(question.audiences),
        scope=None if question.scope is None else _wire_scope(question.scope),
        registered_scope=None if registered is None else wire_text(registered),
        client=None if question.client is None else _wire_client(question.client),
        correlation_id=wire_text(question.correlation_id),
    )


def token_question(question: TokenQuestion) -> pb.CheckTokenScopesRequest:
    granted, registered = question.granted_scope, question.registered_scope
    return pb.CheckTokenScopesRequest(
        audiences=_wire_audiences(question.audiences),
        scope=None if question.scope is None else _wire_scope(question.scope),
        granted_scope=None if granted is None else wire_text(granted),
        registered_scope=None if registered is None else wire_text(registered),
        client=None if question.client is None else _wire_client(question.client),
        grant=_GRANTS[question.grant],
        correlation_id=wire_text(question.correlation_id),
    )


# Answers


def enum_name(enum: Any, prefix: str, value: int) -> str:
    """The name without prefix; the number of a value that only newer servers know; empty for unspecified."""
    if value == 0:
        return ""
    try:
        return str(enum.Name(value)).removeprefix(prefix)
    except ValueError:
        return str(value)


def reason_name(value: int) -> str:
    return enum_name(pb.Reason, "REASON_", value)


def source_name(value: int) -> ClientSource:
    names: dict[int, ClientSource] = {number: name for name, number in _SOURCES.items()}
    return names.get(value, "")


def grant_name(value: int) -> TokenGrant | None:
    names: dict[int, TokenGrant] = {number: name for name, number in _GRANTS.items()}
    return names.get(value)


def added_scopes(added: Iterable[pb.AddedScope]) -> tuple[AddedScope, ...]:
    return tuple(AddedScope(item.scope, enum_name(pb.Origin, "ORIGIN_", item.origin), item.rule) for item in added)


def refused_scopes(refused: Iterable[pb.RefusedScope]) -> tuple[RefusedScope, ...]:
    return tuple(RefusedScope(item.scope, reason_name(item.reason), item.message) for item in refused)


def policy_version(policy: pb.PolicyVersion) -> PolicyVersion:
    return PolicyVersion(policy.generation, policy.digest)


def _raise_unless_allowed(
    answer: pb.ExpandRegistrationScopesResponse | pb.CheckAuthorizeScopesResponse | pb.CheckTokenScopesResponse,
    kind: QuestionKind,
) -> None:
    if answer.decision == pb.DECISION_ALLOW and answer.scope:
        return
    if answer.decision == pb.DECISION_DENY and answer.oauth_error.error:
        raise Denied(
            error=answer.oauth_error.error,
            error_description=answer.oauth_error.error_description,
            reason=reason_name(answer.reason),
            refused=refused_scopes(answer.refused),
            policy=policy_version(answer.policy),
            decision_id=answer.decision_id,
        )
    raise Unavailable(f"decision {answer.decision} is not understood", code="UNKNOWN", kind=kind)


def registration_answer(answer: pb.ExpandRegistrationScopesResponse) -> RegistrationAnswer:
    _raise_unless_allowed(answer, "registration")
    return RegistrationAnswer(
        scope=answer.scope,
        added=added_scopes(answer.added),
        refused=refused_scopes(answer.refused),
        policy=policy_version(answer.policy),
        decision_id=answer.decision_id,
    )


def authorize_answer(answer: pb.CheckAuthorizeScopesResponse) -> AuthorizeAnswer:
    _raise_unless_allowed(answer, "authorize")
    return AuthorizeAnswer(
        scope=answer.scope,
        added=added_scopes(answer.added),
        refused=refused_scopes(answer.refused),
        audience_grants=tuple(AudienceGrant(grant.audience, grant.scope) for grant in answer.audience_grants),
        # A server from before the field leaves it empty, and what was granted is enough for any check within the request.
        effective_registered_scope=answer.effective_registered_scope or answer.scope,
        policy=policy_version(answer.policy),
        decision_id=answer.decision_id,
    )


def token_answer(answer: pb.CheckTokenScopesResponse, question: pb.CheckTokenScopesRequest) -> TokenAnswer:
    _raise_unless_allowed(answer, "token")
    is_omitted = not question.scope.strip(" ")
    if question.HasField("granted_scope") or not is_omitted:
        bound = question.granted_scope if is_omitted else question.scope
        if not set(answer.scope.split(" ")) <= set(bound.split(" ")):
            raise Unavailable(f"an answer that widens: `{answer.scope}` of `{bound}`", code="UNKNOWN", kind="token")
    return TokenAnswer(
        scope=answer.scope,
        refused=refused_scopes(answer.refused),
        audience_grants=tuple(AudienceGrant(item.audience, item.scope) for item in answer.audience_grants),
        policy=policy_version(answer.policy),
        decision_id=answer.decision_id,
    )


def batch_answers(
    answer: pb.BatchCheckAuthorizeScopesResponse, questions: Sequence[pb.CheckAuthorizeScopesRequest]
) -> list[AuthorizeAnswer | Denied | Unavailable]:
    return _each(answer.results, questions, lambda response, _: authorize_answer(response), "authorize")


def batch_token_answers(
    answer: pb.BatchCheckTokenScopesResponse, questions: Sequence[pb.CheckTokenScopesRequest]
) -> list[TokenAnswer | Denied | Unavailable]:
    return _each(answer.results, questions, token_answer, "token")


def _each(
    results: Sequence[Any], questions: Sequence[Q], read: Callable[[Any, Q], T], kind: QuestionKind
) -> list[T | Denied | Unavailable]:
    if len(results) != len(questions):
        raise Unavailable(f"{len(results)} answers to {len(questions)} checks", code="UNKNOWN", kind=kind)
    answers: list[T | Denied | Unavailable] = []
    for result, question in zip(results, questions):
        try:
            if result.WhichOneof("result") == "error":
                error = result.error
                raise Unavailable(error.message, code=code_name(error.code), kind=kind, reason=error.reason)
            answers.append(read(result.response, question))
        except (Denied, Unavailable) as failure:
            answers.append(failure)
    return answers


def audience_description(item: pb.AudienceDescription) -> AudienceDescription:
    return AudienceDescription(
        audience=item.audience,
        scopes_supported=tuple(item.scopes_supported),
        advertised_scopes=tuple(item.advertised_scopes),
        baseline_client_scopes=tuple(item.baseline_client_scopes),
        default_client_scopes=tuple(item.default_client_scopes),
        privileged_scopes=tuple(item.privileged_scopes),
        step_up_scopes=tuple(item.step_up_scopes),
        scope_matching=item.scope_matching,
        scope_descriptions=dict(item.scope_descriptions),
        description=item.description,
        aliases=tuple(item.aliases),
    )


def when(message: Message, field: str) -> datetime | None:
    """A time of UTC, or `None` if the field is unset."""
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(timezone.utc)


def _conditions(items: Iterable[status_pb.Condition]) -> tuple[Condition, ...]:
    return tuple(
        Condition(
            type=item.type,
            status=item.status,
            reason=item.reason,
            message=item.message,
            observed_generation=item.observed_generation,
            last_transition_time=when(item, "last_transition_time"),
        )
        for item in items
    )


def policy_status(status: status_pb.PolicyStatus) -> PolicyStatus:
    attempt = status.last_attempt
    return PolicyStatus(
        active=policy_version(status.active) if status.HasField("active") else None,
        load_time=when(status, "load_time"),
        source=status.source,
        audience_count=status.audience_count,
        last_attempt=PolicyAttempt(
            attempt_time=when(attempt, "attempt_time"),
            accepted=attempt.accepted,
            digest=attempt.digest,
            findings=tuple(
                Finding(
                    file=item.file,
                    line=item.line,
                    column=item.column,
                    code=item.code,
                    severity=item.severity,
                    audience=item.audience,
                    value=item.value,
                    message=item.message,
                    suggestion=item.suggestion,
                )
                for item in attempt.findings
            ),
            finding_count=attempt.finding_count,
        )
        if status.HasField("last_attempt")
        else None,
        conditions=_conditions(status.conditions),
        audience_statuses=tuple(
            AudienceStatus(item.audience, _conditions(item.conditions)) for item in status.audience_statuses
        ),
        audience_status_count=status.audience_status_count,
    )


# Errors

_CODES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


def code_name(number: int) -> str:
    return _CODES.get(number, "UNKNOWN")


def serializer(method: Method[Q, A]) -> Callable[[Q], bytes]:
    return lambda question: question.SerializeToString()


@dataclass(frozen=True)
class ErrorDetails:
    """What the service says of an error beside its code: the `ErrorInfo` and the `RetryInfo`."""

    reason: str = ""
    metadata: dict[str, str] | None = None
    retry_after: float | None = None


def error_details(trailers: Trailers) -> ErrorDetails:
    """The details of an error, from its trailers. Empty if they have none that is understood."""
    reason, metadata, retry_after = "", None, None
    for key, value in trailers or ():
        if key != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        try:
            for detail in status_pb2.Status.FromString(value).details:
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    reason, metadata = info.reason, dict(info.metadata)
                elif detail.Unpack(retry):
                    retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        except DecodeError:
            pass
    return ErrorDetails(reason, metadata, retry_after)


def unavailable(
    kind: QuestionKind, code: grpc.StatusCode, message: str | None, trailers: Trailers
) -> Unavailable:
    if code is grpc.StatusCode.UNIMPLEMENTED and kind == "token":
        message = f"the service is too old for the question of the token endpoint: Scopeward {_TOKENS_SINCE} or newer is needed"
        _log_once(message)
    details = error_details(trailers)
    return Unavailable(
        message or "no details",
        code=code.name,
        kind=kind,
        reason=details.reason,
        metadata=details.metadata,
        retry_after=details.retry_after,
    )


@functools.cache
def _log_once(message: str) -> None:
    """Adapters answer each such request with `server_error`, so the log says why."""
    logging.getLogger("scopeward").error(message)
