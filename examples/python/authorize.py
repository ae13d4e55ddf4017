"""Asks Scopeward both questions, as an authorization server does, and fails closed.

An error, a deadline or an answer that is not understood is a denial, and never `invalid_scope`: the
client asked nothing wrong. Stubs are made from `proto/` at start, so nothing is generated beforehand.
"""

import os
import pathlib
import sys

import grpc
from google.protobuf.json_format import MessageToDict

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "proto"))
pb, services = grpc.protos_and_services("scopeward/v1/scope_policy.proto")

SERVER = os.environ.get("SCOPEWARD_SERVER", "http://127.0.0.1:50551").removeprefix("http://")
DEADLINE_SECONDS = 2.0  # gRPC has none unless it is given


def decide(call, request, unanswered):
    """Returns (scope, None), or (None, error) with the OAuth error to send to the client."""
    try:
        answer = call(request, timeout=DEADLINE_SECONDS)
    except grpc.RpcError as problem:
        print(f"no answer: {problem.code().name}: {problem.details()}", file=sys.stderr)
        return None, {"error": unanswered}
    if answer.decision == pb.DECISION_ALLOW and answer.scope:
        return answer.scope, None
    if answer.decision == pb.DECISION_DENY and answer.oauth_error.error:
        return None, MessageToDict(answer.oauth_error, preserving_proto_field_name=True)
    return None, {"error": unanswered}  # a decision that this client does not know is none


def register(policy, metadata):
    """At `POST /register`: store the scope and return it to the client (RFC 7591 section 3.2.1)."""
    client = pb.Client(source=pb.CLIENT_SOURCE_DCR, client_name=metadata.get("client_name", ""))
    request = pb.ExpandRegistrationScopesRequest(scope=metadata.get("scope"), client=client)
    return decide(policy.ExpandRegistrationScopes, request, "server_error")


def authorize(policy, scope, registered_scope, resources):
    """At `GET /authorize`: `None` for a scope that was not sent, or a registration that is unknown."""
    question = {"audiences": resources, "scope": scope, "registered_scope": registered_scope}
    request = pb.CheckAuthorizeScopesRequest(**question)
    return decide(policy.CheckAuthorizeScopes, request, "temporarily_unavailable")


if __name__ == "__main__":
    with grpc.insecure_channel(SERVER) as channel:
        policy = services.ScopePolicyServiceStub(channel)
        stored, error = register(policy, {"client_name": "Example Tool", "scope": "openid"})
        print("registered:", stored or error)
        if stored:
            wanted, resources = "openid offline_access", ["https://mcp.example.com"]
            granted, error = authorize(policy, wanted, stored, resources)
            print("authorized:", granted or error)
    sys.exit(3 if error else 0)
