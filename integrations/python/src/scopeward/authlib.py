"""Makes an authorization server of Authlib ask Scopeward, in Flask or in any other framework.

    server = with_scopeward(AuthorizationServer(app, query_client, save_token), Client("127.0.0.1:50551"))

Register grants and endpoints as before, `ClientRegistrationEndpoint` and `ClientConfigurationEndpoint` included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import InvalidScopeError
from authlib.oauth2.rfc7591 import InvalidClientMetadataError

from ._adapter import granted_by, login_id, retry_after, source_of
from ._client import Client
from .answers import ClientSource, OAuthClient, TokenGrant
from .errors import Denied, Unavailable

__all__ = ["with_scopeward"]

ServerT = TypeVar("ServerT")

# What these grants issue was decided at authorize, or at the device authorization endpoint; the code is bound to it.
_DECIDED_GRANTS = frozenset({"authorization_code", "implicit", "urn:ietf:params:oauth:grant-type:device_code"})

# What these issue is decided at the token endpoint.
_ASKED_GRANTS: dict[str, TokenGrant] = {
    "refresh_token": "refresh",
    "client_credentials": "client_credentials",
    "urn:ietf:params:oauth:grant-type:jwt-bearer": "jwt_bearer",
    "urn:ietf:params:oauth:grant-type:token-exchange": "token_exchange",
}


def with_scopeward(
    server: ServerT,
    client: Client,
    *,
    audience: str | None = None,
    client_source: Callable[[Any], ClientSource] | None = None,
) -> ServerT:
    """The same server, with its scopes decided by Scopeward.

    Its grants no longer ask the stored client (`get_allowed_scope`) nor `scopes_supported`. The token endpoint issues what was granted at
    authorize, and asks for refresh tokens, client credentials, JWT grants (ID-JAG included) and a token exchange of your own, which puts
    the subject token into `request.credential`: an object with `get_scope()`. Other grants stay as they are.

    Args:
        server: An `AuthorizationServer`, of the Flask integration or of your own.
        client: Kept by the server.
        audience: The resource that this server is for, if the policy has others as well: asked for at registration, and
            later for clients that send no `resource`.
        client_source: Where a client is from. By default `cimd` for an https client id and `dcr` for any other.
    """
    if hasattr(server, "_scopeward"):
        raise ValueError("the server asks Scopeward already")
    server.__class__ = _asking_class(type(server))
    asking: Any = server
    asking._scopeward = _Asker(client, audience, client_source)
    for endpoints in asking._endpoints.values():
        for endpoint in endpoints:
            asking._make_ask(endpoint)
    return server


class _Asker:
    def __init__(
        self, client: Client, audience: str | None, client_source: Callable[[Any], ClientSource] | None
    ) -> None:
        self._client = client
        self._audiences = () if audience is None else (audience,)
        self._source_of = client_source or (lambda stored: source_of(str(stored.get_client_id())))

    def expand(self, metadata: dict[str, Any], stored: Any) -> None:
        """Puts the scope to store into the metadata. `stored` is the client of an update (RFC 7592), else `None`."""
        scope = metadata.get("scope")
        if scope is not None and not isinstance(scope, str):
            raise InvalidClientMetadataError(description="scope is not a string")
        client_id = "" if stored is None else str(stored.get_client_id())
        try:
            answer = self._client.expand_registration_scopes(
                scope=scope,
                client=OAuthClient.from_metadata(metadata, client_id=client_id),
                audiences=self._audiences,
                previous_scope=None if stored is None else _registered_scope(stored),
            )
        except Denied as denied:
            raise InvalidClientMetadataError(description=denied.error_description) from denied
        except Unavailable as unavailable:
            raise _error(unavailable) from unavailable
        metadata["scope"] = answer.scope

    def check(self, request: Any, stored: Any) -> str:
        """The scope that an authorize request gets."""
        payload = request.payload
        source = self._source_of(stored)
        client_id = str(stored.get_client_id())
        data = payload.data
        try:
            answer = self._client.check_authorize_scopes(
                scope=_scope(payload),
                registered_scope=_registered_scope(stored) if source == "dcr" else None,
                audiences=_resources(payload) or self._audiences,
                client=OAuthClient.from_metadata(_metadata(stored), client_id=client_id, source=source),
                correlation_id=login_id(
                    client_id, payload.redirect_uri, payload.state, data.get("code_challenge"), data.get("nonce")
                ),
            )
        except (Denied, Unavailable) as failure:
            raise _error(failure) from failure
        return answer.scope

    def narrow(
        self, grant: TokenGrant, request: Any, stored: Any, granted: str | None, resource: str | None
    ) -> str:
        """The scope that a token gets. `resource` is that of an assertion, which counts before those of the request."""
        source = self._source_of(stored)
        payload = request.payload
        audiences = [resource] if resource else _resources(payload) or self._audiences
        try:
            answer = self._client.check_token_scopes(
                grant=grant,
                scope=payload.scope,
                granted_scope=granted,
                registered_scope=None if source == "cimd" else _registered_scope(stored),
                audiences=audiences,
                client=OAuthClient.from_metadata(
                    _metadata(stored), client_id=str(stored.get_client_id()), source=source
                ),
            )
        except (Denied, Unavailable) as failure:
            raise _error(failure) from failure
        return answer.scope


def _scope(payload: Any) -> str | None:
    """The scope as received. In a request object (RFC 9101) it may be anything."""
    scope = payload.scope
    if scope is not None and not isinstance(scope, str):
        raise InvalidScopeError(description="scope is not a string")
    return scope


def _resources(payload: Any) -> list[str]:
    """Each `resource`: repeated parameters, or a list in a request object."""
    resources: list[str] = []
    for value in payload.datalist.get("resource") or ():
        for resource in value if isinstance(value, list) else [value]:
            if not isinstance(resource, str):
                raise OAuth2Error(error="invalid_target", description="resource is not a string", status_code=400)
            resources.append(resource)
    return resources


def _error(failure: Denied | Unavailable) -> OAuth2Error:
    if failure.error == "invalid_scope":
        return InvalidScopeError(description=failure.error_description)
    error = OAuth2Error if isinstance(failure, Denied) else _UnavailableError
    return error(error=failure.error, description=failure.error_description, status_code=failure.http_status)


class _UnavailableError(OAuth2Error):  # type: ignore[misc]
    def get_headers(self) -> list[tuple[str, str]]:
        return [*super().get_headers(), *retry_after(self.status_code).items()]


def _metadata(stored: Any) -> Mapping[str, Any]:
    """The metadata of a stored client: in one member, as the SQLAlchemy mixin has it, or in one for each."""
    metadata = getattr(stored, "client_metadata", None)
    if isinstance(metadata, Mapping):
        return metadata
    names = ("scope", "client_name", "software_id", "software_version", "redirect_uris", "grant_types", "application_type")
    return {name: getattr(stored, name, None) for name in names}


def _registered_scope(stored: Any) -> str | None:
    """`None` for a client that was stored without scope, which the mixin reads as empty."""
    scope = _metadata(stored).get("scope")
    return scope if isinstance(scope, str) else None


def _asking_class(kind: Any) -> Any:
    """The class of a server with its moments asked for. Of one base, since an object takes no class of another layout."""

    class Asking(kind):  # type: ignore[misc]
        _scopeward: _Asker

        def get_authorization_grant(self, request: Any) -> Any:
            grant = super().get_authorization_grant(request)
            grant.server = _AskingServer(self, request)
            validate = grant.validate_authorization_request

            def validate_authorization_request() -> Any:
                try:
                    redirect_uri = validate()
                finally:
                    # What comes next may store the client, or refer to its row: it gets the real one.
                    if isinstance(request.client, _AskingClient):
                        request.client = request.client._stored
                # A code is to be stored with `request.scope`; who stores `request.payload.scope` gets the same.
                request.payload = _DecidedPayload(request.payload, request.scope)
                return redirect_uri

            grant.validate_authorization_request = validate_authorization_request
            return grant

        def get_token_grant(self, request: Any) -> Any:
            grant = super().get_token_grant(request)
            if (kind := _ASKED_GRANTS.get(grant.GRANT_TYPE)) is not None:
                _NarrowingServer(self, kind, request).attach(grant)
            return grant

        def generate_token(self, grant_type: str, client: Any, *args: Any, **kwargs: Any) -> Any:
            if grant_type in _DECIDED_GRANTS:
                client = _DecidedClient(client)
            return super().generate_token(grant_type, client, *args, **kwargs)

        def register_endpoint(self, endpoint: Any) -> None:
            super().register_endpoint(endpoint)
            for endpoints in self._endpoints.values():
                for registered in endpoints:
                    self._make_ask(registered)

        def _make_ask(self, endpoint: Any) -> None:
            name = endpoint.ENDPOINT_NAME
            if name not in ("client_registration", "client_configuration", "device_authorization"):
                return
            if getattr(endpoint, "_asks_scopeward", False):
                return
            endpoint._asks_scopeward = True
            if name == "device_authorization":
                self._make_device_ask(endpoint)
                return
            is_update = name == "client_configuration"
            extract = endpoint.extract_client_metadata

            # The answer to a registration is built from this, before the client is saved.
            def extract_client_metadata(request: Any) -> dict[str, Any]:
                metadata: dict[str, Any] = extract(request)
                self._scopeward.expand(metadata, request.client if is_update else None)
                return metadata

            endpoint.extract_client_metadata = extract_client_metadata

        def _make_device_ask(self, endpoint: Any) -> None:
            endpoint.server = _UncheckedServer(self)
            authenticate = endpoint.authenticate_client

            # What follows stores the scope of the payload with the device code.
            def authenticate_client(request: Any) -> Any:
                stored = authenticate(request)
                request.payload = _DecidedPayload(request.payload, self._scopeward.check(request, stored))
                return stored

            endpoint.authenticate_client = authenticate_client

    Asking.__name__, Asking.__qualname__ = kind.__name__, kind.__qualname__
    return Asking


class _View:
    """Passes on what it does not answer itself. Never stored."""

    def __init__(self, viewed: Any) -> None:
        self._viewed = viewed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._viewed, name)


class _UncheckedServer(_View):
    """The server without a check of scopes."""

    def validate_requested_scope(self, scope: str | None) -> None:
        """Left to the policy."""


class _AskingServer(_UncheckedServer):
    """The server as an authorization grant sees it."""

    def __init__(self, server: Any, request: Any) -> None:
        super().__init__(server)
        self._request = request
        self._answer: str | None = None

    def query_client(self, client_id: str) -> Any:
        stored = self._viewed.query_client(client_id)
        return stored and _AskingClient(self, stored)

    def authenticate_client(self, *args: Any, **kwargs: Any) -> Any:
        return _AskingClient(self, self._viewed.authenticate_client(*args, **kwargs))

    def scope_of(self, stored: Any) -> str:
        """The answer, asked for once a request: a server may validate for its page and again for its response."""
        if self._answer is None:
            self._answer = self._viewed._scopeward.check(self._request, stored)
        return self._answer


class _NarrowingServer(_View):
    """The server as a grant sees it that asks at the token endpoint, at the latest when a token is generated."""

    def __init__(self, server: Any, kind: TokenGrant, request: Any) -> None:
        super().__init__(server)
        self._kind = kind
        self._request = request
        self._stored: Any = None
        self._refresh_token: Any = None
        self._claims: Mapping[str, Any] = {}
        self._answer: str | None = None

    def attach(self, grant: Any) -> None:
        """Puts this in the place of the grant's server, and the question in the place of its own checks of scopes."""
        grant.server = self

        def replace(name: str, make: Callable[[Any], Callable[..., Any]]) -> None:
            if (own := getattr(grant, name, None)) is not None:
                setattr(grant, name, make(own))

        def keep_claims(own: Any) -> Callable[..., Any]:
            def process(assertion: str) -> Any:
                self._claims = own(assertion)
                return self._claims

            return process

        def validate_token_scope(token: Any) -> None:
            self._refresh_token = token
            self.decide()

        # An assertion counts as used from here on.
        def ask_before(own: Any) -> Callable[..., Any]:
            def check(*arguments: Any) -> Any:
                self.decide()
                return own(*arguments)

            return check

        replace("_validate_token_scope", lambda _: validate_token_scope)
        replace("process_assertion_claims", keep_claims)
        replace("_process_assertion_claims", keep_claims)
        replace("check_jti", ask_before)
        replace("_resolve_scope", lambda _: lambda claims: self.decide())

    def authenticate_client(self, *args: Any, **kwargs: Any) -> Any:
        self._stored = self._viewed.authenticate_client(*args, **kwargs)
        return self._stored

    def validate_requested_scope(self, scope: str | None) -> None:
        self.decide()

    def generate_token(self, *, client: Any, scope: str | None = None, **named: Any) -> Any:
        answer = self.decide()
        # A grant may issue less than it may, and never more.
        kept = [item for item in (scope or "").split() if item in answer.split()]
        return self._viewed.generate_token(client=_DecidedClient(client), scope=" ".join(kept) or answer, **named)

    def decide(self) -> str:
        """The answer, asked for once a request, before anything is used up. From then on it is the scope that was requested."""
        if self._answer is None:
            request, resource = self._request, self._claims.get("resource")
            self._answer = self._viewed._scopeward.narrow(
                self._kind,
                request,
                request.client or self._stored,
                self._granted_scope(),
                resource if isinstance(resource, str) else None,
            )
            request.payload = _DecidedPayload(request.payload, self._answer)
        return self._answer

    def _granted_scope(self) -> str | None:
        if self._kind == "jwt_bearer":
            return granted_by(self._claims)
        refresh_token = self._refresh_token or self._request.refresh_token
        token = {"refresh": refresh_token, "token_exchange": self._request.credential}.get(self._kind)
        return None if token is None else token.get_scope() or ""


class _AskingClient(_View):
    """The stored client as an authorization grant sees it."""

    def __init__(self, server: _AskingServer, stored: Any) -> None:
        super().__init__(stored)
        self._server = server
        self._stored = stored

    def get_allowed_scope(self, scope: str | None) -> str:
        return self._server.scope_of(self._stored)


class _DecidedClient(_View):
    """The stored client as a token generator sees it."""

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or ""


class _DecidedPayload(_View):
    def __init__(self, payload: Any, scope: str) -> None:
        super().__init__(payload)
        self.scope = scope
