"""Asks Scopeward its three questions, as an authorization server does, and fails closed.

An error, a deadline or an answer that is not understood is a denial, and never `invalid_scope`: the
client asked nothing wrong. Stubs are made from `proto/` at start, so nothing is generated beforehand.
"""

import os
import pathlib
import sys
import uuid

import grpc
from google.protobuf.json_format import MessageToDict

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "proto"))
pb, services = grpc.protos_and_services("scopeward/v1/scope_policy.proto")

SERVER = os.environ.get("SCOPEWARD_SERVER", "http://127.0.0.1:50551").removeprefix("http://")
DEADLINE_SECONDS = 2.0  # gRPC has none unless it is given
# After an outage the library would wait up to two minutes before it connects again; with these it is back in 0.6 s. The second is
# what a connection may take, handshake included.
CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


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


def client_of(metadata, client_id=""):
    """The whole client, the same each time: a rule of the policy holds only for what is sent."""
    names = ["client_name", "software_id", "software_version", "redirect_uris", "grant_types", "application_type"]
    known = {name: metadata[name] for name in names if metadata.get(name)}
    return pb.Client(client_id=client_id, source=pb.CLIENT_SOURCE_DCR, **known)


def register(policy, metadata, stored=None):
    """At `POST /register`: store the scope and return it to the client (RFC 7591 section 3.2.1).

    At an update (RFC 7592) `stored` is the client as stored.
    """
    request = pb.ExpandRegistrationScopesRequest(
        scope=metadata.get("scope"),  # None where it was not sent
        client=client_of(metadata),
        previous_scope=stored["scope"] if stored else None,
    )
    return decide(policy.ExpandRegistrationScopes, request, "server_error")


def authorize(policy, stored, scope, resources, login):
    """At `GET /authorize`: `None` for a scope that was not sent.

    The answer's `effective_registered_scope` would be for a check of our own in this request; it is never stored.
    """
    request = pb.CheckAuthorizeScopesRequest(
        audiences=resources,
        scope=scope,
        registered_scope=stored["scope"],  # unset would mean that we do not know what was registered
        client=client_of(stored["metadata"], stored["client_id"]),
        correlation_id=login,  # the same for all calls of one login
    )
    return decide(policy.CheckAuthorizeScopes, request, "temporarily_unavailable")


def refresh(policy, stored, granted, scope, resources, login):
    """At `POST /token`, once the refresh token is found to be good and before it is used up. Nothing is added here.

    `granted` is the scope stored with the refresh token, and stays stored with the new one, whatever the answer has.
    """
    request = pb.CheckTokenScopesRequest(
        grant=pb.TOKEN_GRANT_REFRESH,
        audiences=resources,
        scope=scope,
        granted_scope=granted,
        client=client_of(stored["metadata"], stored["client_id"]),
        correlation_id=login,
    )
    return decide(policy.CheckTokenScopes, request, "temporarily_unavailable")


if __name__ == "__main__":
    with grpc.insecure_channel(SERVER, options=CHANNEL_OPTIONS) as channel:
        policy = services.ScopePolicyServiceStub(channel)
        tool = {"client_name": "Example Tool", "scope": "openid", "redirect_uris": ["http://127.0.0.1:33418/callback"]}
        granted, error = register(policy, tool)
        print("registered:", granted or error)
        if granted:
            stored = {"client_id": "example-tool", "scope": granted, "metadata": tool}
            wanted, resources, login = "openid offline_access", ["https://mcp.example.com"], str(uuid.uuid4())
            granted, error = authorize(policy, stored, wanted, resources, login)
            print("authorized:", granted or error)
        if granted:
            granted, error = refresh(policy, stored, granted, None, resources, login)
            print("refreshed:", granted or error)
    sys.exit(3 if error else 0)
