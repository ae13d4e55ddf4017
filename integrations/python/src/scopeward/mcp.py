"""Makes the authorization server of the MCP Python SDK ask Scopeward.

One wrapper around the provider that the server has already:

    provider = with_scopeward(MyProvider(), AsyncClient("127.0.0.1:50551"))

Leave `valid_scopes` and `default_scopes` of `ClientRegistrationOptions` unset: the SDK applies them before it calls a provider.
"""

from __future__ import annotations

import functools
import json
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mcp.server.auth.provider import (
    AuthorizationErrorCode,
    AuthorizationParams,
    AuthorizeError,
    RefreshToken,
    RegistrationError,
    TokenError,
    TokenErrorCode,
)
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from starlette.exceptions import HTTPException

from ._adapter import assertion_claims, granted_by, login_id, retry_after, source_of
from ._async_client import AsyncClient
from .answers import ClientSource, OAuthClient, TokenGrant
from .errors import Denied, Unavailable

if TYPE_CHECKING:
    from mcp.server.auth.provider import IdentityAssertionParams

__all__ = ["with_scopeward"]

ProviderT = TypeVar("ProviderT")
ClientT = TypeVar("ClientT", bound=OAuthClientInformationFull)
TokenT = TypeVar("TokenT", bound=RefreshToken)
SourceOf = Callable[[OAuthClientInformationFull], ClientSource]


def with_scopeward(
    provider: ProviderT,
    client: AsyncClient,
    *,
    audience: str | None = None,
    client_source: SourceOf | None = None,
) -> ProviderT:
    """The provider, with its scopes decided by Scopeward.

    Args:
        provider: Any `OAuthAuthorizationServerProvider`.
        client: Kept by the provider; close it when the server ends.
        audience: The resource that this server is for, if the policy has others as well: asked for at registration, and
            later for clients and tokens without `resource`.
        client_source: Where a client is from. By default `cimd` for an https client id and `dcr` for any other.

    Returns:
        An object with all attributes of the provider.
    """
    asker = Asker(client, audience, client_source)
    return cast(ProviderT, _Provider(provider, asker))


class _Provider:
    def __init__(self, provider: Any, asker: Asker) -> None:
        self._provider = provider
        self._asker = asker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        client = await self._provider.get_client(client_id)
        return None if client is None else deferring(client)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        await self._asker.expand(client_info)
        await self._provider.register_client(client_info)

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        client, params = await self._asker.check(client, params)
        url: str = await self._provider.authorize(client, params)
        return url

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> RefreshToken | None:
        token = await self._provider.load_refresh_token(client, refresh_token)
        return None if token is None else undecided(token)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        refresh_token, scopes = await self._asker.narrow_refresh(client, refresh_token, scopes)
        return issued(await self._provider.exchange_refresh_token(client, refresh_token, scopes), scopes)

    async def exchange_identity_assertion(
        self, client: OAuthClientInformationFull, params: IdentityAssertionParams
    ) -> OAuthToken:
        params = await self._asker.narrow_assertion(client, params)
        return issued(await self._provider.exchange_identity_assertion(client, params), params.scopes or [])


class Asker:
    """Asks the questions in the words of the SDK, and answers in its errors."""

    def __init__(self, client: AsyncClient, audience: str | None, client_source: SourceOf | None) -> None:
        self._client = client
        self._audiences = () if audience is None else (audience,)
        self._source_of = client_source or (lambda registered: source_of(registered.client_id))

    async def expand(self, client_info: OAuthClientInformationFull) -> None:
        """Puts the scope to store into the client; the SDK answers the registration with the same object.

        Raises:
            RegistrationError: for a denial.
            HTTPException: 503 or 500 where there is no answer, since the SDK's error knows no code for that.
        """
        try:
            answer = await self._client.expand_registration_scopes(
                scope=client_info.scope,
                client=self._oauth_client(client_info),
                audiences=self._audiences,
                correlation_id=login_id(client_info.client_id),
            )
        except Denied as denied:
            raise RegistrationError("invalid_client_metadata", denied.error_description) from denied
        except Unavailable as unavailable:
            raise _http_error(unavailable) from unavailable
        client_info.scope = answer.scope

    async def check(
        self, client: ClientT, params: AuthorizationParams
    ) -> tuple[ClientT, AuthorizationParams]:
        """The parameters with the granted scopes, and a client of this request that holds them. Nothing of it is to be stored.

        Raises:
            AuthorizeError: for a denial, or where there is no answer.
        """
        source = self._source_of(client)
        try:
            answer = await self._client.check_authorize_scopes(
                scope=None if params.scopes is None else " ".join(params.scopes),
                # What a metadata document says of scopes is no registration, and servers fill it in as they like.
                registered_scope=client.scope if source == "dcr" else None,
                audiences=self._audiences if params.resource is None else (params.resource,),
                client=self._oauth_client(client),
                correlation_id=login_id(
                    client.client_id, str(params.redirect_uri), params.state, params.code_challenge
                ),
            )
        except (Denied, Unavailable) as failure:
            raise AuthorizeError(cast(AuthorizationErrorCode, failure.error), failure.error_description) from failure
        holder = client.model_copy(update={"scope": answer.effective_registered_scope})
        return holder, params.model_copy(update={"scopes": answer.scope.split(" ")})

    async def narrow_refresh(
        self, client: OAuthClientInformationFull, token: TokenT, scopes: list[str]
    ) -> tuple[TokenT, list[str]]:
        """The stored refresh token, which keeps its grant, and the scopes of the new access token.

        Raises:
            TokenError: for a denial.
            HTTPException: 503 or 500 where there is no answer. The refresh token is not used up then.
        """
        granted = list(token.scopes)
        # The SDK passes on the scopes of the token themselves where the client sent none.
        asked = None if scopes is token.scopes else scopes
        scopes = await self._narrow("refresh", client, asked, " ".join(granted), token.resource)
        return token.model_copy(update={"scopes": granted}), scopes

    async def narrow_assertion(
        self, client: OAuthClientInformationFull, params: IdentityAssertionParams
    ) -> IdentityAssertionParams:
        """The parameters with the scopes that the token may have: of those in the assertion, which the provider verifies.

        Raises:
            TokenError: for a denial.
            HTTPException: 503 or 500 where there is no answer. The assertion is not used up then.
        """
        claims = assertion_claims(params.assertion)
        resource = claims.get("resource")  # signed, other than the parameter
        audience = resource if isinstance(resource, str) else params.resource
        scopes = await self._narrow("jwt_bearer", client, params.scopes, granted_by(claims), audience)
        return params.model_copy(update={"scopes": scopes})

    async def _narrow(
        self,
        grant: TokenGrant,
        client: OAuthClientInformationFull,
        asked: list[str] | None,
        granted: str | None,
        resource: str | None,
    ) -> list[str]:
        try:
            answer = await self._client.check_token_scopes(
                grant=grant,
                scope=None if asked is None else " ".join(asked),
                granted_scope=granted,
                registered_scope=client.scope if self._source_of(client) == "dcr" else None,
                audiences=self._audiences if resource is None else (resource,),
                client=self._oauth_client(client),
            )
        except Denied as denied:
            raise TokenError(cast(TokenErrorCode, denied.error), denied.error_description) from denied
        except Unavailable as unavailable:
            raise _http_error(unavailable) from unavailable
        return answer.scope.split(" ")

    def _oauth_client(self, client: OAuthClientInformationFull) -> OAuthClient:
        # The server of FastMCP keeps the redirect URIs of a metadata document there alone.
        document = getattr(client, "cimd_document", None)
        redirect_uris = client.redirect_uris or getattr(document, "redirect_uris", None) or ()
        return OAuthClient(
            client_id=client.client_id,
            source=self._source_of(client),
            client_name=client.client_name or "",
            software_id=client.software_id or "",
            software_version=client.software_version or "",
            redirect_uris=tuple(str(uri) for uri in redirect_uris),
            grant_types=tuple(client.grant_types),
            application_type=client.application_type or "",
        )


def _http_error(unavailable: Unavailable) -> HTTPException:
    """For registration and the token endpoint: the errors that the SDK has for them know no code for that."""
    return HTTPException(
        unavailable.http_status,
        json.dumps(unavailable.oauth_error()),
        {"content-type": "application/json", "cache-control": "no-store", **retry_after(unavailable.http_status)},
    )


class _Deferring:
    """Leaves the decision to `authorize`, which the SDK calls next: this one is not awaited, and cannot ask."""

    def validate_scope(self, requested_scope: str | None) -> list[str] | None:
        # Joined with single spaces these are the parameter as received, blanks at its ends included.
        return None if requested_scope is None else requested_scope.split(" ")


@functools.cache
def _deferring_class(kind: type[OAuthClientInformationFull]) -> type[OAuthClientInformationFull]:
    made: type[OAuthClientInformationFull] = types.new_class(kind.__name__, (_Deferring, kind))
    return made


def deferring(client: ClientT) -> ClientT:
    """A copy of the stored client that leaves scopes to `authorize`. The stored one, which may be cached, stays as it is."""
    if isinstance(client, _Deferring):
        return client
    copy = client.model_copy()
    object.__setattr__(copy, "__class__", _deferring_class(type(client)))
    return copy


class _Undecided(list[str]):
    """The scopes of a refresh token, which contain any other: the SDK compares them before the provider is asked."""

    def __contains__(self, scope: object) -> bool:
        return True


def undecided(token: TokenT) -> TokenT:
    """A copy of the stored refresh token that leaves the requested scopes to `exchange_refresh_token`."""
    return token.model_copy(update={"scopes": _Undecided(token.scopes)})


def issued(tokens: OAuthToken, scopes: list[str]) -> OAuthToken:
    """The token response, which names its scope (RFC 6749 section 5.1).

    Raises:
        HTTPException: 500 if the provider issued more than it was told. Nobody gets such a token.
    """
    if tokens.scope is None:
        return tokens.model_copy(update={"scope": " ".join(scopes)})
    if not set(tokens.scope.split()) <= set(scopes):
        message = f"the provider issued `{tokens.scope}`, and was told `{' '.join(scopes)}`"
        unavailable = Unavailable(message, code="FAILED_PRECONDITION", kind="token")
        raise _http_error(unavailable) from unavailable
    return tokens
