"""The client for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import grpc
import grpc.aio

from . import _audit, _wire
from ._channel import Connection, parse_target
from ._client import DEFAULT_DEADLINE, DEFAULT_TARGET
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


class AsyncClient:
    """Asks Scopeward from asyncio. Arguments, answers and errors are those of `Client`.

    Make one for each process and keep it. It may be made anywhere, before there is an event loop; it opens a channel at the
    first call, in the loop of that call. Use it from one loop at a time.
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
        """Names the server; opens nothing. See `Client`."""
        self._connection = Connection(
            parse_target(target), tls_ca_file, tls_cert_file, tls_private_key_file, server_name, token, token_file
        )
        self._deadline = deadline
        self._channel: grpc.aio.Channel | None = None
        self._channel_is_for: tuple[object, ...] = ()
        self._is_closed = False

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends calls and streams that are open, and refuses new ones."""
        self._is_closed = True
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def expand_registration_scopes(
        self,
        *,
        scope: str | None = None,
        client: OAuthClient | None = None,
        audiences: Iterable[str] | str = (),
        previous_scope: str | None = None,
        correlation_id: str = "",
        deadline: float | None = None,
    ) -> RegistrationAnswer:
        """As `Client.expand_registration_scopes`."""
        question = _wire.expand_question(scope, client, audiences, previous_scope, correlation_id)
        return _wire.registration_answer(await self._ask(_wire.EXPAND, question, deadline))

    async def check_authorize_scopes(
        self,
        *,
        scope: str | None = None,
        registered_scope: str | None = None,
        audiences: Iterable[str] | str = (),
        client: OAuthClient | None = None,
        correlation_id: str = "",
        deadline: float | None = None,
    ) -> AuthorizeAnswer:
        """As `Client.check_authorize_scopes`."""
        named = (audiences,) if isinstance(audiences, str) else tuple(audiences)
        question = AuthorizeQuestion(scope, registered_scope, named, client, correlation_id)
        return _wire.authorize_answer(await self._ask(_wire.CHECK, _wire.check_question(question), deadline))

    async def batch_check_authorize_scopes(
        self, checks: Iterable[AuthorizeQuestion], *, deadline: float | None = None
    ) -> list[AuthorizeAnswer | Denied | Unavailable]:
        """As `Client.batch_check_authorize_scopes`."""
        questions = [_wire.check_question(check) for check in checks]
        request = pb.BatchCheckAuthorizeScopesRequest(checks=questions)
        return _wire.batch_answers(await self._ask(_wire.BATCH, request, deadline), questions)

    async def check_token_scopes(
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
        """As `Client.check_token_scopes`."""
        named = (audiences,) if isinstance(audiences, str) else tuple(audiences)
        question = _wire.token_question(
            TokenQuestion(grant, scope, granted_scope, registered_scope, named, client, correlation_id)
        )
        return _wire.token_answer(await self._ask(_wire.TOKEN, question, deadline), question)

    async def batch_check_token_scopes(
        self, checks: Iterable[TokenQuestion], *, deadline: float | None = None
    ) -> list[TokenAnswer | Denied | Unavailable]:
        """As `Client.batch_check_token_scopes`."""
        questions = [_wire.token_question(check) for check in checks]
        request = pb.BatchCheckTokenScopesRequest(checks=questions)
        return _wire.batch_token_answers(await self._ask(_wire.BATCH_TOKEN, request, deadline), questions)

    async def describe_audience(self, audience: str, *, deadline: float | None = None) -> AudienceDescription:
        """As `Client.describe_audience`."""
        answer = await self._ask(_wire.DESCRIBE, pb.DescribeAudienceRequest(audience=audience), deadline)
        if len(answer.audiences) != 1:
            raise Unavailable(f"{len(answer.audiences)} descriptions of one audience", code="UNKNOWN")
        return _wire.audience_description(answer.audiences[0])

    async def describe_audiences(self, *, deadline: float | None = None) -> AsyncIterator[AudienceDescription]:
        """As `Client.describe_audiences`."""
        token = ""
        while True:
            answer = await self._ask(_wire.DESCRIBE, pb.DescribeAudienceRequest(page_token=token), deadline)
            for item in answer.audiences:
                yield _wire.audience_description(item)
            if not (token := answer.next_page_token):
                return

    async def policy_status(self, *, deadline: float | None = None) -> PolicyStatus:
        """As `Client.policy_status`."""
        return _wire.policy_status((await self._ask(_wire.STATUS, status_pb.GetPolicyStatusRequest(), deadline)).status)

    async def watch_policy_status(self) -> AsyncIterator[PolicyStatus]:
        """As `Client.watch_policy_status`."""
        method = _wire.WATCH_STATUS
        stream = self._stream(method, status_pb.WatchPolicyStatusRequest())
        try:
            async for answer in stream:
                yield _wire.policy_status(answer.status)
        except grpc.aio.AioRpcError as error:
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
    ) -> AsyncIterator[AuditEvent | AuditGap]:
        """As `Client.audit_events`, for `async for`."""
        reader = _audit.Reader(cursor, start, kinds, audiences, follow, self._connection.endpoint.addresses)
        return _audit.read_async(reader, lambda: self._stream(_audit.STREAM, reader.question()))

    def _open(self, method: Method[Q, A]) -> grpc.aio.Channel:
        """The channel of this process and loop, with the TLS files as they are now."""
        if self._is_closed:
            raise Unavailable("the client is closed", code="CANCELLED", kind=method.kind)
        try:
            wanted = (os.getpid(), asyncio.get_running_loop(), self._connection.files())
            if self._channel is None or self._channel_is_for != wanted:
                self._channel, self._channel_is_for = self._connect(), wanted
            return self._channel
        except OSError as error:
            raise Unavailable(f"could not read a TLS file: {error}", code="UNAUTHENTICATED", kind=method.kind) from error

    def _connect(self) -> grpc.aio.Channel:
        connection, options = self._connection, self._connection.options()
        if (credentials := connection.credentials()) is not None:
            return grpc.aio.secure_channel(connection.endpoint.target, credentials, options)
        return grpc.aio.insecure_channel(connection.endpoint.target, options)

    async def _ask(self, method: Method[Q, A], question: Q, deadline: float | None) -> A:
        call = self._open(method).unary_unary(
            method.path,
            request_serializer=_wire.serializer(method),
            response_deserializer=method.answer.FromString,
        )
        try:
            answer: A = await call(
                question,
                timeout=self._deadline if deadline is None else deadline,
                metadata=self._connection.metadata(method.kind),
            )
            return answer
        except grpc.aio.AioRpcError as error:
            raise _unavailable(method, error) from error
        except grpc.aio.UsageError as error:  # a channel that was closed meanwhile
            raise Unavailable(str(error), code="CANCELLED", kind=method.kind) from error

    def _stream(self, method: Method[Q, A], question: Q) -> grpc.aio.UnaryStreamCall[Q, A]:
        call = self._open(method).unary_stream(
            method.path,
            request_serializer=_wire.serializer(method),
            response_deserializer=method.answer.FromString,
        )
        return call(question, metadata=self._connection.metadata(method.kind))


def _unavailable(method: Method[Q, A], error: grpc.aio.AioRpcError) -> Unavailable:
    return _wire.unavailable(method.kind, error.code(), error.details(), error.trailing_metadata())
