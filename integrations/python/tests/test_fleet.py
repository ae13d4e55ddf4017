"""Several servers behind one channel, with the service config of the guide *More than one machine*."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from pathlib import Path

import grpc
from service import AUDIENCE, Service

from scopeward._proto import scope_policy_pb2 as pb

GUIDE = Path(__file__).resolve().parents[3] / "docs/guides/more-than-one-machine.md"


def service_config() -> str:
    found = re.search(r"```json\n(.*?)\n```", GUIDE.read_text(), re.DOTALL)
    assert found
    return json.dumps(json.loads(found[1]))


def test_a_rolling_restart_under_load_fails_no_call(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Service(tmp_path / str(number))) for number in range(3)]
        target = "ipv4:" + ",".join(server.target for server in servers)
        # Addresses in a list have no name of their own, which a target of `dns:` has.
        options = [("grpc.service_config", service_config()), ("grpc.default_authority", "scopeward")]
        channel = stack.enter_context(grpc.insecure_channel(target, options))
        expand = channel.unary_unary(
            "/scopeward.v1.ScopePolicyService/ExpandRegistrationScopes",
            request_serializer=pb.ExpandRegistrationScopesRequest.SerializeToString,
            response_deserializer=pb.ExpandRegistrationScopesResponse.FromString,
        )
        request = pb.ExpandRegistrationScopesRequest(audiences=[AUDIENCE], scope="openid")
        answered, failed, over = [0, 0, 0, 0], [], threading.Event()
        progress = threading.Condition()

        def load(caller: int) -> None:
            while not over.is_set():
                try:
                    expand(request, timeout=20, wait_for_ready=True)
                except grpc.RpcError as error:
                    failed.append(error)
                    return
                with progress:
                    answered[caller] += 1
                    progress.notify_all()

        def under_load(calls: int) -> None:
            with progress:
                until = sum(answered) + calls
                assert progress.wait_for(lambda: failed or sum(answered) >= until, timeout=60)

        callers = [threading.Thread(target=load, args=(number,)) for number in range(4)]
        for caller in callers:
            caller.start()
        try:
            for _ in range(2):
                for server in servers:
                    under_load(100)
                    server.stop()
                    under_load(100)
                    server.start()
            under_load(100)
        finally:
            over.set()
            for caller in callers:
                caller.join()
        assert not failed
        # What was answered is on record, on one server or another; a call that was tried again may be there twice.
        events = [event for server in servers for event in server.audit()]
        assert sum(event["kind"] == "AUDIT_EVENT_KIND_EXPANSION" for event in events) >= sum(answered)
