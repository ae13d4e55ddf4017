"""Request objects (RFC 9101) at Authlib: what they say is decided, and not the parameters around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import authlib_core
import authlib_flask
import demo
import pytest
from authlib.oauth2.rfc9101 import JWTAuthenticationRequest
from demo import REDIRECT_URI, Login, OAuthFailure
from joserfc import jwk, jwt
from service import Service

KEY = jwk.ECKey.generate_key("P-256")


@pytest.fixture
def login(shared: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    register = authlib_core.register

    class Requests(JWTAuthenticationRequest):  # type: ignore[misc]
        def resolve_client_public_key(self, client: Any) -> Any:
            return KEY

    def with_requests(server: Any, store: authlib_core.Store) -> None:
        register(server, store)
        server.register_extension(Requests())

    monkeypatch.setattr(authlib_core, "register", with_requests)
    with demo.served(authlib_flask.EXAMPLE, shared.target) as base:
        yield Login(authlib_flask.EXAMPLE, base)


def ask(login: Login, claims: dict[str, Any], outside: str = "openid root") -> str:
    """The scope that is granted. The parameters ask for `outside`."""
    client = login.register("openid")
    state = claims.get("state", "of the object")
    challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # of RFC 7636 appendix B
    members = {"response_type": "code", "client_id": client["client_id"], "redirect_uri": REDIRECT_URI, "state": state}
    members |= {"code_challenge": challenge, "code_challenge_method": "S256", **claims}
    request = jwt.encode({"alg": "ES256"}, members, KEY)
    answer = login.authorize(client, outside, request=request, state=str(state))
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    named = {"code": answer["code"], "code_verifier": verifier, "redirect_uri": REDIRECT_URI}
    return str(login.token(client, grant_type="authorization_code", **named)["scope"])


def test_the_scope_of_the_object_is_decided(login: Login) -> None:
    assert ask(login, {"scope": "openid mcp:write", "resource": demo.RESOURCE}) == "openid mcp:write"
    assert ask(login, {}) == "openid offline_access"
    for scope in ("openid root", "openid profile"):
        with pytest.raises(OAuthFailure) as failure:
            ask(login, {"scope": scope}, outside="openid")
        assert failure.value.error == "invalid_scope"


def test_several_resources_are_asked_for(login: Login) -> None:
    assert ask(login, {"scope": "openid", "resource": [demo.RESOURCE]}) == "openid"
    with pytest.raises(OAuthFailure) as failure:
        ask(login, {"scope": "openid", "resource": [demo.RESOURCE, "https://other.example.com"]})
    assert failure.value.error == "invalid_target"


@pytest.mark.parametrize("scope", [["openid"], {"openid": True}, 7, True], ids=["list", "object", "number", "true"])
def test_a_scope_that_is_no_text_is_refused(login: Login, scope: Any) -> None:
    with pytest.raises(OAuthFailure) as failure:
        ask(login, {"scope": scope})
    assert failure.value.error == "invalid_scope"


@pytest.mark.parametrize("resource", [7, {"a": 1}, [7], [["https://mcp.example.com"]]], ids=["number", "object", "numbers", "lists"])
def test_a_resource_that_is_no_text_is_refused(login: Login, resource: Any) -> None:
    with pytest.raises(OAuthFailure) as failure:
        ask(login, {"scope": "openid", "resource": resource})
    assert failure.value.error == "invalid_target"


def test_other_members_may_be_anything(login: Login) -> None:
    assert ask(login, {"scope": "openid", "nonce": ["x"], "state": 7}) == "openid"
