"""A server that passes registrations to the real one, and says by its health service whether it serves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
from scopeward import _wire

_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"


class SickServer:
    def __init__(self, target: str) -> None:
        self.calls = 0
        self._channel = grpc.insecure_channel(target)
        self._changed = threading.Event()
        self._is_over = threading.Event()
        ask = self._channel.unary_unary(_wire.EXPAND.path)

        def expand(question: bytes, _: grpc.ServicerContext) -> bytes:
            self.calls += 1
            answer: bytes = ask(question, timeout=30)
            return answer

        def watch(_: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            yield _SERVING
            self._changed.wait()
            yield _NOT_SERVING
            self._is_over.wait()

        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        for service, methods in (
            ("scopeward.v1.ScopePolicyService", {"ExpandRegistrationScopes": grpc.unary_unary_rpc_method_handler(expand)}),
            ("grpc.health.v1.Health", {"Watch": grpc.unary_stream_rpc_method_handler(watch)}),
        ):
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def become_sick(self) -> None:
        self._changed.set()

    def __enter__(self) -> SickServer:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._changed.set()
        self._is_over.set()
        self._server.stop(None).wait()
        self._channel.close()
