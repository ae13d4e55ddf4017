"""A server that answers each call with one code."""

from __future__ import annotations

from concurrent import futures
from typing import Any

import grpc


class FailingServer:
    def __init__(self, code: grpc.StatusCode) -> None:
        self.attempts: list[str] = []
        """`grpc-previous-rpc-attempts` of each call; empty for a first one."""

        def fail(_: bytes, context: Any) -> bytes:
            metadata = dict(context.invocation_metadata())
            self.attempts.append(metadata.get("grpc-previous-rpc-attempts", ""))
            context.abort(code, "as told")
            raise AssertionError

        handler = grpc.unary_unary_rpc_method_handler(fail)

        class Every(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
                return handler if details.method.startswith("/scopeward.v1.") else None

        self._server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Every()])
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> FailingServer:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
