"""Grants of the token endpoint alone: assertions (RFC 7523, ID-JAG), client credentials, token exchange (RFC 8693)."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import authlib_core
import authlib_flask
import demo
import mcp_sdk
import pytest
from authlib.oauth2.drafts.id_jag import IDJAGGrant
from authlib.oauth2.rfc6749 import BaseGrant, TokenEndpointMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc7523 import JWTBearerGrant
from authlib_core import Store, StoredClient, StoredToken
from demo import Login, OAuthFailure
from joserfc import jwk, jwt
from mcp.server.auth.provider import IdentityAssertionParams, TokenError
from mcp.server.auth.routes import create_auth_routes
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from old_server import OldServer
from pydantic import AnyHttpUrl
from servers import eventually, serving
from service import POLICY, Service
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from test_refresh import WITHOUT_PROFILE, refused, scopes, with_token

from scopeward import AsyncClient
from scopeward.mcp import with_scopeward

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ISSUER = "https://idp.example.com"
KEY = jwk.ECKey.generate_key("P-256", {"kid": "1"})
OTHER_KEY = jwk.ECKey.generate_key("P-256", {"kid": "1"})
ABSENT = object()


@dataclass
class Enterprise:
    """A client that presents what it has at the token endpoint, and its server."""

    login: Login
    client: dict[str, str]
    service: Service
    resource: str | None = None
    """What FastMCP wants in an assertion: its own URL, which its policy has as another name of the audience."""

    def write_policy(self, text: str) -> None:
        aliases = "" if self.resource is None else f"    aliases: [{json.dumps(self.resource)}]\n"
        self.service.write_policy(text.replace("    baseline", f"{aliases}    baseline"))

    def present(self, grant_type: str, **parameters: str) -> set[str]:
        return scopes(self.login.token(self.client, grant_type=grant_type, **{**self.client, **parameters}))

    def assertion(self, scope: Any = ABSENT, *, key: Any = KEY, **claims: Any) -> str:
        now = int(time.time())
        members = {"iss": ISSUER, "sub": "user", "aud": self.login.base, "client_id": self.client["client_id"]}
        members |= {"iat": now, "exp": now + 60, "jti": secrets.token_hex(), **({} if scope is ABSENT else {"scope": scope})}
        members |= {} if self.resource is None else {"resource": self.resource}
        header = {"alg": "ES256", "kid": "1", "typ": "oauth-id-jag+jwt"}
        return str(jwt.encode(header, {**members, **claims}, key))

    def exchange(self, granted: Any = ABSENT, asked: str | None = None, **more: Any) -> set[str]:
        """A new assertion for `granted`, presented with the parameter `scope`."""
        return self.present(JWT_BEARER, assertion=self.assertion(granted, **more), **({} if asked is None else {"scope": asked}))


# The MCP Python SDK


class AssertingProvider(mcp_sdk.MemoryProvider):
    """Takes the ID-JAGs of one issuer, and issues what is requested of their scope."""

    heeds_scopes = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.clients["enterprise"] = OAuthClientInformationFull.model_validate(
            {
                "client_id": "enterprise",
                "client_secret": "secret",
                "token_endpoint_auth_method": "client_secret_post",
                "redirect_uris": [demo.REDIRECT_URI],
                "grant_types": [JWT_BEARER],
                "scope": "openid profile",
            }
        )

    async def exchange_identity_assertion(
        self, client: OAuthClientInformationFull, params: IdentityAssertionParams
    ) -> OAuthToken:
        try:
            claims = jwt.decode(params.assertion, KEY).claims
        except Exception as error:
            raise TokenError("invalid_grant", "bad assertion") from error
        if claims["jti"] in self.seen or claims["client_id"] != client.client_id:
            raise TokenError("invalid_grant", "not this assertion")
        self.seen.add(claims["jti"])
        granted = claims.get("scope", client.scope).split()
        wanted = [scope for scope in granted if scope in (params.scopes or [])] if self.heeds_scopes else granted
        return OAuthToken(access_token=secrets.token_hex(), scope=" ".join(wanted))


@pytest.fixture
def provider() -> AssertingProvider:
    return AssertingProvider()


@pytest.fixture
def mcp(service: Service, provider: AssertingProvider) -> Iterator[Enterprise]:
    def make_app(target: str, base: str) -> Any:
        asking = with_scopeward(provider, AsyncClient(target))
        return Starlette(routes=create_auth_routes(asking, AnyHttpUrl(base), identity_assertion_enabled=True))

    example = demo.Example(make_app)
    with demo.served(example, service.target) as base:
        yield Enterprise(Login(example, base), {"client_id": "enterprise", "client_secret": "secret"}, service)


# FastMCP


@pytest.fixture
def fastmcp(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Enterprise]:
    fastmcp_proxy = pytest.importorskip("fastmcp_proxy")
    from fastmcp.server.auth import IdentityAssertion

    make = fastmcp_proxy.OAuthProxy

    def asserting(**named: Any) -> Any:
        jwks_uris = {ISSUER: f"{named['base_url']}/jwks"}
        return make(**named, identity_assertion=IdentityAssertion(trusted_issuers=[ISSUER], jwks_uris=jwks_uris, algorithm="ES256"))

    async def jwks(_: Request) -> Response:
        return JSONResponse({"keys": [KEY.as_dict(private=False)]})

    def make_app(target: str, base: str) -> Any:
        app = fastmcp_proxy.make_app(target, base)
        app.router.routes.insert(0, Route("/jwks", jwks))
        return app

    monkeypatch.setattr(fastmcp_proxy, "OAuthProxy", asserting)
    example = demo.Example(make_app, resource=None)
    with demo.served(example, service.target) as base:
        login = Login(example, base)
        client = login.register("openid profile")
        enterprise = Enterprise(login, {"client_id": client["client_id"]}, service, f"{base}/mcp")
        enterprise.write_policy(POLICY)
        yield enterprise


# Authlib


@dataclass
class Grants:
    """What the grants below share. They are as one would write them."""

    store: Store
    audience: str = ""
    used: int = 0
    """How many assertions."""


def jag(grants: Grants) -> type[Any]:
    class Asserted(IDJAGGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_post"]

        def get_audiences(self) -> list[str]:
            return [grants.audience]

        def resolve_issuer_key(self, issuer: str, headers: Any) -> Any:
            return KEY

        def authenticate_user(self, subject: str) -> str:
            return subject

        def check_jti(self, claims: Any, jti: str) -> bool:
            grants.used += 1
            return True

        def check_id_jag_permission(self, client: Any, user: Any, scopes: list[str]) -> bool:
            return "offline_access" not in scopes

    return Asserted


def jwt_bearer(grants: Grants) -> type[Any]:
    class Asserted(JWTBearerGrant):  # type: ignore[misc]
        def get_audiences(self) -> list[str]:
            return [grants.audience]

        def resolve_issuer_client(self, issuer: str) -> Any:
            return grants.store.query_client("enterprise")

        def resolve_client_public_key(self, client: Any) -> Any:
            return KEY

        def authenticate_user(self, subject: str) -> str:
            return subject

        def has_granted_permission(self, client: Any, user: Any) -> bool:
            return True

    return Asserted


def credentials(grants: Grants) -> type[Any]:
    class Credentials(ClientCredentialsGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_post"]

    return Credentials


def token_exchange(grants: Grants) -> type[Any]:
    class Exchange(BaseGrant, TokenEndpointMixin):  # type: ignore[misc]
        GRANT_TYPE = TOKEN_EXCHANGE
        TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_post"]

        def validate_token_request(self) -> None:
            self.request.client = self.authenticate_token_endpoint_client()
            subject = self.request.form["subject_token"]
            found = [token for token in grants.store.tokens if token.token["access_token"] == subject]
            self.request.credential = found[0] if found else None

        def create_token_response(self) -> Any:
            token = self.generate_token(scope=self.request.payload.scope, include_refresh_token=False)
            self.save_token(token)
            return 200, token, self.TOKEN_RESPONSE_HEADER

    return Exchange


@pytest.fixture
def authlib(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Enterprise, Grants]]]:
    """Starts the example in Flask with one more grant."""
    register = authlib_core.register
    for check in ("check_grant_type", "check_endpoint_auth_method"):
        monkeypatch.setattr(StoredClient, check, lambda *_: True)
    monkeypatch.setattr(StoredClient, "check_client_secret", lambda _, secret: secret == "secret")
    with contextlib.ExitStack() as stack:

        def start(
            make: Callable[[Grants], type[Any]], scope: str | None = "openid profile", target: str = service.target
        ) -> tuple[Enterprise, Grants]:
            metadata = {"client_name": "Machine", "redirect_uris": [demo.REDIRECT_URI]}
            machine = StoredClient("enterprise", metadata if scope is None else {**metadata, "scope": scope})
            grants = Grants(Store(clients={"enterprise": machine}))

            def with_grant(server: Any, store: Store) -> None:
                register(server, store)
                server.register_grant(make(grants))

            monkeypatch.setattr(authlib_core, "Store", lambda: grants.store)
            monkeypatch.setattr(authlib_core, "register", with_grant)
            grants.audience = stack.enter_context(demo.served(authlib_flask.EXAMPLE, target))
            login = Login(authlib_flask.EXAMPLE, grants.audience)
            return Enterprise(login, {"client_id": "enterprise", "client_secret": "secret"}, service), grants

        yield start


# Assertions


@pytest.fixture(params=["mcp", "fastmcp", "authlib"])
def enterprise(request: pytest.FixtureRequest) -> Enterprise:
    found = request.getfixturevalue(request.param)
    made: Enterprise = found(jag)[0] if request.param == "authlib" else found
    return made


def test_an_assertion_gets_what_it_stands_for(enterprise: Enterprise) -> None:
    assert enterprise.exchange("openid profile") == {"openid", "profile"}
    assert enterprise.exchange("openid profile", " openid ") == {"openid"}
    # Of the assertion alone, whatever the client registered, and never what the policy would add.
    assert enterprise.exchange("mcp:read") == {"mcp:read"}
    enterprise.write_policy(WITHOUT_PROFILE)
    assert enterprise.exchange("openid profile") == {"openid"}
    assert enterprise.exchange("openid profile", "openid profile") == {"openid"}


@pytest.mark.parametrize(
    ("granted", "asked"),
    [("openid", "openid profile"), ("openid root", "root"), ("root", None), ("nonsense", None), ("", None), ("openid", "openid admin")],
)
def test_an_assertion_gets_nothing_else(enterprise: Enterprise, granted: str, asked: str | None) -> None:
    with pytest.raises(OAuthFailure) as failure:
        enterprise.exchange(granted, asked)
    assert refused(failure) == (400, "invalid_scope")


def test_what_exceeds_an_assertion_is_dropped_where_the_policy_says_so(enterprise: Enterprise) -> None:
    enterprise.write_policy(with_token("exceedingScopes: drop"))
    assert enterprise.exchange("openid", "openid profile") == {"openid"}


def test_an_assertion_of_another_resource_is_an_invalid_target(mcp: Enterprise) -> None:
    other, own = "https://other.example.com", "https://mcp.example.com/"
    for assertion, parameters in (
        (mcp.assertion("openid", resource=other), {}),
        (mcp.assertion("openid", resource=other), {"resource": own}),
        (mcp.assertion("openid"), {"resource": other}),
    ):
        with pytest.raises(OAuthFailure) as failure:
            mcp.present(JWT_BEARER, assertion=assertion, **parameters)
        assert refused(failure) == (400, "invalid_target")
    assert mcp.exchange("openid", resource=own) == {"openid"}


def test_a_forged_assertion_gets_nothing(enterprise: Enterprise) -> None:
    for text in (enterprise.assertion("openid", key=OTHER_KEY), "no.jwt", "a.b.c", "a.W10.c", "x" * 5000):
        with pytest.raises(OAuthFailure) as failure:
            enterprise.present(JWT_BEARER, assertion=text)
        assert failure.value.status in (400, 401) and failure.value.error in ("invalid_grant", "invalid_scope")


def test_an_assertion_without_scope_is_for_what_the_client_holds(mcp: Enterprise, authlib: Any) -> None:
    machine, _ = authlib(jag)
    for enterprise in (mcp, machine):
        # Not the defaults, no step-up. What the baseline has, it holds.
        assert enterprise.exchange(asked="openid") == {"openid"}
        with pytest.raises(OAuthFailure) as failure:
            enterprise.exchange(asked="mcp:write")
        assert refused(failure) == (400, "invalid_scope")


def test_an_assertion_is_not_used_up_without_an_answer(mcp: Enterprise, provider: AssertingProvider, authlib: Any) -> None:
    machine, grants = authlib(jag)
    for enterprise in (mcp, machine):
        text = enterprise.assertion("openid")
        enterprise.service.stop()
        with pytest.raises(OAuthFailure) as failure:
            enterprise.present(JWT_BEARER, assertion=text)
        assert refused(failure) == (503, "temporarily_unavailable")
        assert not provider.seen and not grants.used
        enterprise.service.start()
    for enterprise in (mcp, machine):
        assert eventually(lambda: enterprise.exchange("openid")) == {"openid"}


def test_a_provider_that_issues_more_issues_nothing(mcp: Enterprise, provider: AssertingProvider) -> None:
    provider.heeds_scopes = False
    assert mcp.exchange("openid profile") == {"openid", "profile"}
    with pytest.raises(OAuthFailure) as failure:
        mcp.exchange("openid profile", "openid")
    assert refused(failure) == (500, "server_error")


def test_permissions_are_asked_of_what_is_granted(authlib: Any) -> None:
    machine, _ = authlib(jag)
    with pytest.raises(OAuthFailure) as failure:
        machine.exchange("openid offline_access")
    assert refused(failure) == (400, "invalid_grant")
    machine.write_policy(POLICY.replace("forbiddenScopes: [root]", "forbiddenScopes: [root, offline_access]").replace("baselineClientScopes: [offline_access]", "baselineClientScopes: []"))
    assert machine.exchange("openid offline_access") == {"openid"}


def test_authlib_jwt_bearer(authlib: Any) -> None:
    machine, _ = authlib(jwt_bearer)
    assert machine.exchange("openid profile") == {"openid", "profile"}
    assert machine.exchange(asked="profile") == {"profile"}
    assert machine.exchange() == {"openid", "profile", "offline_access"}
    for granted, asked in (("openid", "profile"), (ABSENT, "mcp:write"), (ABSENT, "root")):
        with pytest.raises(OAuthFailure) as failure:
            machine.exchange(granted, asked)
        assert refused(failure) == (400, "invalid_scope")


# Client credentials


def test_client_credentials_get_what_the_client_holds(authlib: Any) -> None:
    machine, _ = authlib(credentials, "openid profile admin")
    get = machine.present
    assert get("client_credentials", scope="openid profile") == {"openid", "profile"}
    # A client from before the baseline holds it too. What is privileged has to be registered and asked for.
    assert get("client_credentials") == {"openid", "profile", "offline_access"}
    assert get("client_credentials", scope="admin") == {"admin"}
    for scope in ("openid mcp:write", "root", "nonsense", "mcp:read"):
        with pytest.raises(OAuthFailure) as failure:
            get("client_credentials", scope=scope)
        assert refused(failure) == (400, "invalid_scope")
    machine.write_policy(WITHOUT_PROFILE)
    assert get("client_credentials", scope="openid profile") == {"openid"}
    machine.service.stop()
    with pytest.raises(OAuthFailure) as failure:
        get("client_credentials", scope="openid")
    assert refused(failure) == (503, "temporarily_unavailable")


def test_client_credentials_without_a_registration(authlib: Any) -> None:
    machine, _ = authlib(credentials, None)
    assert machine.present("client_credentials") == {"offline_access"}
    with pytest.raises(OAuthFailure) as failure:
        machine.present("client_credentials", scope="openid")
    assert refused(failure) == (400, "invalid_scope")


def test_client_credentials_without_the_question(service: Service, authlib: Any) -> None:
    with OldServer(service.target) as old:
        machine, _ = authlib(credentials, target=old.target)
        with pytest.raises(OAuthFailure) as failure:
            machine.present("client_credentials", scope="openid")
        assert refused(failure) == (500, "server_error")


# Token exchange


def test_token_exchange_gets_what_the_subject_token_has(authlib: Any) -> None:
    machine, grants = authlib(token_exchange)
    grants.store.tokens.append(StoredToken("other", {"access_token": "subject", "scope": "openid profile mcp:read"}))
    exchange = lambda **more: machine.present(TOKEN_EXCHANGE, **{"subject_token": "subject", **more})  # noqa: E731
    assert exchange() == {"openid", "profile", "mcp:read"}
    assert exchange(scope="openid") == {"openid"}
    with pytest.raises(OAuthFailure) as failure:
        exchange(scope="openid mcp:write")
    assert refused(failure) == (400, "invalid_scope")
    machine.write_policy(WITHOUT_PROFILE)
    assert exchange() == {"openid", "mcp:read"}
    # A grant that does not say what its subject token has.
    with pytest.raises(OAuthFailure) as failure:
        exchange(subject_token="unknown")
    assert refused(failure) == (500, "server_error")


# django-oauth-toolkit


def test_django_client_credentials_get_what_the_client_holds(service: Service) -> None:
    with serving("django_toolkit", service.target) as (_, login):
        from django.db import connection
        from oauth2_provider.models import get_application_model

        from scopeward.django.models import Registration

        application = get_application_model().objects.create(
            client_id=secrets.token_hex(),
            client_secret="secret",
            hash_client_secret=False,
            client_type="confidential",
            authorization_grant_type="client-credentials",
        )
        machine = Enterprise(login, {"client_id": application.client_id, "client_secret": "secret"}, service)
        # Nobody knows what it registered: it has the baseline, and neither defaults nor what the toolkit has in `SCOPES`.
        assert machine.present("client_credentials") == {"offline_access"}
        with pytest.raises(OAuthFailure) as failure:
            machine.present("client_credentials", scope="openid")
        assert refused(failure) == (400, "invalid_scope")
        Registration.objects.create(application=application, scope="openid profile")
        connection.close()
        assert machine.present("client_credentials") == {"openid", "profile", "offline_access"}
        assert machine.present("client_credentials", scope="profile") == {"profile"}
        machine.write_policy(WITHOUT_PROFILE)
        assert machine.present("client_credentials", scope="openid profile") == {"openid"}
        service.stop()
        with pytest.raises(OAuthFailure) as failure:
            machine.present("client_credentials", scope="openid")
        assert refused(failure) == (503, "temporarily_unavailable")
