"""The client for code that blocks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import grpc

from . import _audit, _wire
from ._channel import Connection, parse_target
from ._proto import policy_status_pb2 as status_pb
from ._proto import scope_policy_pb2 as pb
from ._wire import A, Method, Q
from .answers import (
    AudienceDescription,
    AuthorizeAnswer,
    AuthorizeQuestion,
    OAuthClient,
    RegistrationAnswer,
    TokenAnswer,
    TokenGrant,
    TokenQuestion,
)
from .audit import AuditEvent, AuditEventKind, AuditGap, Cursor
from .errors import Denied, Unavailable
from .status import PolicyStatus

if TYPE_CHECKING:
    from ._channel import PathText

DEFAULT_TARGET = "127.0.0.1:50551"
DEFAULT_DEADLINE = 1.0


class Client:
    """Asks Scopeward, and blocks until it has the answer or the deadline passes.

    Make one for each process and keep it: it connects at the first call, reconnects by itself, and may be used by all threads.
    It may be made before a process forks; each process opens a channel of its own.

    Every method that asks raises `Unavailable` where there is no answer.
    """

    def __init__(
        self,
        target: str | Sequence[str] = DEFAULT_TARGET,
        *,
        tls_ca_file: PathText | None = None,
        tls_cert_file: PathText | None = None,
        tls_private_key_file: PathText | None = None,
        server_name: str | None = None,
        token: str | None = None,
        token_file: PathText | None = None,
        deadline: float = DEFAULT_DEADLINE,
    ) -> None:
        """Names the server; opens nothing.

        Args:
            target: `HOST:PORT`, `https://HOST:PORT`, `unix:/PATH`, or several IP addresses. Calls go round robin over all
                addresses that a name has, leaving out those that are not healthy.
            tls_ca_file: Who issues the certificate of an https server (PEM). Without it the roots that gRPC brings.
            tls_cert_file: Certificate to show, with its chain (PEM). These three are read again when they change.
            tls_private_key_file: Its key (PEM).
            server_name: The name that the certificate must have, where the target does not say it.
            token: Bearer token to show; only over TLS, or within this machine.
            token_file: File with the token, read for each call.
            deadline: Seconds that a call may take, its retries included.

        Raises:
            ValueError: if the arguments do not fit each other.
        """
        self._connection = Connection(
            parse_target(target), tls_ca_file, tls_cert_file, tls_private_key_file, server_name, token, token_file
        )
        self._deadline = deadline
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._channel_is_for: tuple[object, ...] = ()
        self._is_closed = False

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends calls and streams that are open, and refuses new ones."""
        with self._lock:
            self._is_closed = True
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def expand_registration_scopes(
        self,
        *,
        scope: str | None = None,
        client: OAuthClient | None = None,
        audiences: Iterable[str] | str = (),
        previous_scope: str | None = None,
        correlation_id: str = "",
        deadline: float | None = None,
    ) -> RegistrationAnswer:
        """Asks which scopes a client holds after it registers (RFC 7591) or updates its registration (RFC 7592).

        Args:
            scope: As received; `None` if the client sent none.
            client: The metadata that you are about to store.
            audiences: Nothing, if one policy serves all: RFC 7591 knows no `resource`.
            previous_scope: At an update the scopes stored so far; `None` at a new registration.
            correlation_id: Your own id of this registration, for the audit: at most 128 bytes of printable ASCII.
            deadline: Seconds, instead of the client's.

        Raises:
            Denied: with the error for HTTP 400.
            Unavailable: answer `http_status` and `oauth_error()`.
        """
        question = _wire.expand_question(scope, client, audiences, previous_scope, correlation_id)
        return _wire.registration_answer(self._ask(_wire.EXPAND, question, deadline))

    def check_authorize_scopes(
        self,
        *,
        scope: str | None = None,
        registered_scope: str | None = None,
        audiences: Iterable[str] | str = (),
        client: OAuthClient | None = None,
        correlation_id: str = "",
        deadline: float | None = None,
    ) -> AuthorizeAnswer:
        """Asks which scopes an authorize request gets (RFC 6749 section 3.3). Not for the token endpoint, where nothing may be added.

        Args:
            scope: The parameter as received; `None` if there was none.
            registered_scope: What you stored at registration. `None` means that you do not know, `""` that there was none.
            audiences: Each `resource` parameter (RFC 8707), in order.
            client: The client as stored.
            correlation_id: One id for all calls of this login, for the audit: at most 128 bytes of printable ASCII.
            deadline: Seconds, instead of the client's.

        Raises:
            Denied: with the error for the redirect.
            Unavailable: with the error for the redirect.
        """
        named = (audiences,) if isinstance(audiences, str) else tuple(audiences)
        question = AuthorizeQuestion(scope, registered_scope, named, client, correlation_id)
        return _wire.authorize_answer(self._ask(_wire.CHECK, _wire.check_question(question), deadline))

    def batch_check_authorize_scopes(
        self, checks: Iterable[AuthorizeQuestion], *, deadline: float | None = None
    ) -> list[AuthorizeAnswer | Denied | Unavailable]:
        """Asks up to 100 checks, answered under one policy version, in the order asked. Failures are in the list, not raised."""
        questions = [_wire.check_question(check) for check in checks]
        request = pb.BatchCheckAuthorizeScopesRequest(checks=questions)
        return _wire.batch_answers(self._ask(_wire.BATCH, request, deadline), questions)

    def check_token_scopes(
        self,
        *,
        grant: TokenGrant,
        scope: str | None = None,
        granted_scope: str | None = None,
        registered_scope: str | None = None,
        audiences: Iterable[str] | str = (),
        client: OAuthClient | None = None,
        correlation_id: str = "",
        deadline: float | None = None,
    ) -> TokenAnswer:
        """Asks which scopes a token gets at the token endpoint. It only narrows, whatever the policy says.

        Not for authorization codes and device codes: what was granted at authorize stands. Ask before a refresh token or an
        assertion is used up, so that a client can try again where there is no answer.

        Args:
            grant: What the client presents.
            scope: The parameter as received; `None` if there was none.
            granted_scope: What the grant stands for: the scope of the refresh token, of the subject token, or in the assertion.
                Needed for `refresh` and `token_exchange`. `None` means that it says nothing, `""` that nothing was granted.
            registered_scope: What you stored at registration; counts only without `granted_scope`.
            audiences: Each `resource` parameter (RFC 8707), in order, or what the grant is for.
            client: The client as stored.
            correlation_id: The id of the login that the grant comes from, if you keep it: at most 128 bytes of printable ASCII.
            deadline: Seconds, instead of the client's.

        Raises:
            Denied: with the error for HTTP 400.
            Unavailable: answer `http_status` and `oauth_error()`.
        """
        named = (audiences,) if isinstance(audiences, str) else tuple(audiences)
        question = _wire.token_question(
            TokenQuestion(grant, scope, granted_scope, registered_scope, named, client, correlation_id)
        )
        return _wire.token_answer(self._ask(_wire.TOKEN, question, deadline), question)

    def batch_check_token_scopes(
        self, checks: Iterable[TokenQuestion], *, deadline: float | None = None
    ) -> list[TokenAnswer | Denied | Unavailable]:
        """As `batch_check_authorize_scopes`, for the token endpoint."""
        questions = [_wire.token_question(check) for check in checks]
        request = pb.BatchCheckTokenScopesRequest(checks=questions)
        return _wire.batch_token_answers(self._ask(_wire.BATCH_TOKEN, request, deadline), questions)

    def describe_audience(self, audience: str, *, deadline: float | None = None) -> AudienceDescription:
        """What the policy says about one audience. An unknown one is `Unavailable` with code `NOT_FOUND`."""
        answer = self._ask(_wire.DESCRIBE, pb.DescribeAudienceRequest(audience=audience), deadline)
        if len(answer.audiences) != 1:
            raise Unavailable(f"{len(answer.audiences)} descriptions of one audience", code="UNKNOWN")
        return _wire.audience_description(answer.audiences[0])

    def describe_audiences(self, *, deadline: float | None = None) -> Iterator[AudienceDescription]:
        """All audiences, ordered by name, in as many calls as it takes."""
        token = ""
        while True:
            answer = self._ask(_wire.DESCRIBE, pb.DescribeAudienceRequest(page_token=token), deadline)
            yield from map(_wire.audience_description, answer.audiences)
            if not (token := answer.next_page_token):
                return

    def policy_status(self, *, deadline: float | None = None) -> PolicyStatus:
        """Which policy serves, and whether the files on disk would be accepted."""
        return _wire.policy_status(self._ask(_wire.STATUS, status_pb.GetPolicyStatusRequest(), deadline).status)

    def watch_policy_status(self) -> Iterator[PolicyStatus]:
        """The current state, then each change, and every 30 seconds. Ends with `Unavailable` when the server disconnects."""
        method = _wire.WATCH_STATUS
        stream = self._stream(method, status_pb.WatchPolicyStatusRequest())
        try:
            for answer in stream:
                yield _wire.policy_status(answer.status)
        except grpc.RpcError as error:
            raise _unavailable(method, error) from error
        finally:
            stream.cancel()

    def audit_events(
        self,
        *,
        cursor: Cursor | None = None,
        start: Literal["earliest", "latest"] | datetime = "earliest",
        kinds: Iterable[AuditEventKind] = (),
        audiences: Iterable[str] | str = (),
        follow: bool = True,
    ) -> Iterator[AuditEvent | AuditGap]:
        """The events of the audit log from the cursor on, at least once each.

        The cursor moves past an event when the next one is asked for, so leave the loop only between events that you have
        handled. What passes by itself is waited for: a server that restarts, a connection that breaks.

        Args:
            cursor: Where to continue, such as `FileCursor(path)`. Without one, or if it is empty, `start` counts.
            start: Where to begin.
            kinds: Only these events. Gaps come always.
            audiences: Only events of these audiences.
            follow: Wait for new events; otherwise end after the newest one, and raise `Unavailable` if the server disconnects.

        Raises:
            AuditStopped: if only a person can help, such as a cursor that is older than what is kept.
            ValueError: if the client has several addresses: each server has a log of its own.
        """
        reader = _audit.Reader(cursor, start, kinds, audiences, follow, self._connection.endpoint.addresses)
        return _audit.read_blocking(reader, lambda: self._stream(_audit.STREAM, reader.question()))

    def _open(self, method: Method[Q, A]) -> grpc.Channel:
        """The channel of this process, with the TLS files as they are now."""
        try:
            wanted = (os.getpid(), self._connection.files())
            with self._lock:
                if self._is_closed:
                    raise Unavailable("the client is closed", code="CANCELLED", kind=method.kind)
                if self._channel is None or self._channel_is_for != wanted:
                    # What was open before ends with its calls: the library closes a channel that nothing refers to.
                    self._channel, self._channel_is_for = self._connect(), wanted
                return self._channel
        except OSError as error:
            raise Unavailable(f"could not read a TLS file: {error}", code="UNAUTHENTICATED", kind=method.kind) from error

    def _connect(self) -> grpc.Channel:
        connection, options = self._connection, self._connection.options()
        if (credentials := connection.credentials()) is not None:
            return grpc.secure_channel(connection.endpoint.target, credentials, options)
        return grpc.insecure_channel(connection.endpoint.target, options)

    def _ask(self, method: Method[Q, A], question: Q, deadline: float | None) -> A:
        channel = self._open(method)
        try:
            call = channel.unary_unary(
                method.path,
                request_serializer=_wire.serializer(method),
                response_deserializer=method.answer.FromString,
            )
            answer: A = call(
                question,
                timeout=self._deadline if deadline is None else deadline,
                metadata=self._connection.metadata(method.kind),
            )
            return answer
        except grpc.RpcError as error:
            raise _unavailable(method, error) from error
        except ValueError as error:  # a channel that was closed meanwhile
            raise Unavailable(str(error), code="CANCELLED", kind=method.kind) from error

    def _stream(self, method: Method[Q, A], question: Q) -> _audit.Stream[A]:
        channel = self._open(method)
        call = channel.unary_stream(
            method.path,
            request_serializer=_wire.serializer(method),
            response_deserializer=method.answer.FromString,
        )
        stream: _audit.Stream[A] = call(question, metadata=self._connection.metadata(method.kind))
        return stream


def _unavailable(method: Method[Q, A], error: grpc.RpcError) -> Unavailable:
    return _wire.unavailable(method.kind, error.code(), error.details(), error.trailing_metadata())
