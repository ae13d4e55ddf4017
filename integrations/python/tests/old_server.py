"""A server from before some fields, and from before the question of the token endpoint unless it is told that question: passes questions
to the real one, and takes those fields out of its answers."""

from __future__ import annotations

from concurrent import futures
from typing import Any

import grpc
from scopeward import _wire


class OldServer:
    def __init__(self, target: str, *missing: str, has_tokens: bool = False, **changed: Any) -> None:
        self._channel = grpc.insecure_channel(target)
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        self.take_out(*missing, **changed)

        def handler(method: _wire.Method[Any, Any]) -> grpc.RpcMethodHandler:
            ask = self._channel.unary_unary(
                method.path,
                request_serializer=method.question.SerializeToString,
                response_deserializer=method.answer.FromString,
            )

            def answer(question: Any, context: grpc.ServicerContext) -> Any:
                given = ask(question, timeout=5)
                for field in self._missing:
                    if field in given.DESCRIPTOR.fields_by_name:
                        given.ClearField(field)
                for field, value in self._changed.items():
                    setattr(given, field, value)
                return given

            return grpc.unary_unary_rpc_method_handler(
                answer,
                request_deserializer=method.question.FromString,
                response_serializer=method.answer.SerializeToString,
            )

        known: list[_wire.Method[Any, Any]] = [_wire.EXPAND, _wire.CHECK, *([_wire.TOKEN] if has_tokens else [])]
        methods = {method.path.rpartition("/")[2]: handler(method) for method in known}
        service = "scopeward.v1.ScopePolicyService"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def take_out(self, *missing: str, **changed: Any) -> None:
        """From now on, of its answers."""
        self._missing, self._changed = missing, changed

    def __enter__(self) -> OldServer:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._channel.close()
