"""The authorize and the token endpoint of django-oauth-toolkit."""

from __future__ import annotations

from typing import Any

from oauth2_provider.models import get_device_grant_model
from oauth2_provider.oauth2_validators import OAuth2Validator
from oauthlib.oauth2.rfc6749 import errors

from .._adapter import login_id, retry_after
from ..answers import TokenGrant
from ..errors import Denied, Unavailable
from . import asking

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"


class ScopewardValidator(OAuth2Validator):  # type: ignore[misc]
    """Asks Scopeward at the authorize endpoint, for the GET of the consent page and again for its POST, and at the token endpoint for
    refresh tokens and client credentials. What codes stand for was decided before, also those of devices.
    """

    def validate_scopes(
        self, client_id: str, scopes: list[str], client: Any, request: Any, *args: Any, **kwargs: Any
    ) -> bool:
        if asking.is_device_authorization():
            return True  # the view asks, once everything else is checked
        if request.response_type is None:
            if request.grant_type == DEVICE_CODE:
                request.scopes = _granted_to_device(client_id, request.device_code)
                if request.scopes is None:
                    raise errors.InvalidGrantError(request=request)
                return True
            if request.grant_type == "client_credentials":
                request.scopes = _narrowed("client_credentials", request, client, None)
                return True
            return bool(super().validate_scopes(client_id, scopes, client, request, *args, **kwargs))
        if not _is_authorize(request):
            return False
        # The library puts the user there when a consent was given. A parameter `user` would be a text.
        is_consent = request.user is not None and not isinstance(request.user, str)
        agreed = _agreed(scopes)
        registration = asking.registration_of(client)
        try:
            answer = asking.client().check_authorize_scopes(
                scope=" ".join(agreed) if is_consent else request.scope,
                registered_scope=registration.scope if registration else None,
                audiences=_resources(request, is_consent) or asking.audiences(),
                client=asking.oauth_client(client, registration),
                correlation_id=login_id(
                    client_id, request.redirect_uri, request.state, request.code_challenge, request.nonce
                ),
            )
        except Denied as denied:
            if denied.error == "invalid_scope":
                raise errors.InvalidScopeError(denied.error_description, request=request) from denied
            raise _custom(denied, request) from denied
        except Unavailable as unavailable:
            raise _no_answer(unavailable, request) from unavailable
        granted = answer.scope.split(" ")
        if is_consent:
            # Nothing that the user was not shown, whatever the policy says now.
            granted = [scope for scope in granted if scope in agreed]
        request.scopes = granted
        return bool(granted)

    def get_original_scopes(self, refresh_token: str, request: Any, *args: Any, **kwargs: Any) -> list[str]:
        """Asked for once the refresh token is found to be good, and before it is used up."""
        granted = _agreed(super().get_original_scopes(refresh_token, request, *args, **kwargs))
        narrowed = _narrowed("refresh", request, request.client, " ".join(granted))
        request.scope = None  # from here on all of the answer is asked for
        return narrowed

    def validate_device_code(self, client_id: str, code: str, request: Any, *args: Any, **kwargs: Any) -> str | None:
        """Of oauthlib 4, for which the toolkit has nothing: until the user has agreed, its view answers itself."""
        scopes = _granted_to_device(client_id, code)
        if scopes is None:
            return None
        request.scopes = scopes
        return "authorized"

    def get_default_scopes(self, client_id: str, request: Any, *args: Any, **kwargs: Any) -> list[str]:
        if asking.is_device_authorization() or _is_authorize(request):
            return []  # the policy says what stands in for an omitted scope
        defaults: list[str] = super().get_default_scopes(client_id, request, *args, **kwargs)
        return defaults


def _granted_to_device(client_id: str, code: str) -> list[str] | None:
    """The scopes of a device code that the user has agreed to."""
    model = get_device_grant_model()
    grant = model.objects.filter(client_id=client_id, device_code=code, status=model.AUTHORIZED).first()
    return None if grant is None or grant.is_expired() else str(grant.scope).split()


def _is_authorize(request: Any) -> bool:
    """Both parameters are the client's, at either endpoint. Some send the grant type to the authorize endpoint as well."""
    return request.response_type is not None and request.grant_type in (None, "authorization_code")


def _agreed(scopes: list[str] | str | None) -> list[str]:
    """The consent form has them as one text."""
    return scopes.split() if isinstance(scopes, str) else list(scopes or ())


def _resources(request: Any, is_consent: bool) -> list[str]:
    if is_consent:
        resource = request.resource
        return [resource] if isinstance(resource, str) else list(resource or ())
    return [value for name, value in request.uri_query_params + (request.decoded_body or []) if name == "resource"]


def _narrowed(grant: TokenGrant, request: Any, application: Any, granted: str | None) -> list[str]:
    """The scopes of a token."""
    registration = asking.registration_of(application)
    of_grant = getattr(request.refresh_token_instance, "resource", None) if grant == "refresh" else None
    try:
        answer = asking.client().check_token_scopes(
            grant=grant,
            scope=request.scope,
            granted_scope=granted,
            registered_scope=registration.scope if registration else None,
            audiences=_resources(request, False) or of_grant or asking.audiences(),
            client=asking.oauth_client(application, registration),
        )
    except Denied as denied:
        if denied.error == "invalid_scope":
            raise errors.InvalidScopeError(denied.error_description, request=request) from denied
        raise _custom(denied, request) from denied
    except Unavailable as unavailable:
        raise _no_answer(unavailable, request, unavailable.http_status) from unavailable
    return answer.scope.split(" ")


def _no_answer(unavailable: Unavailable, request: Any, status: int | None = None) -> errors.OAuth2Error:
    is_transient = unavailable.error == "temporarily_unavailable"
    kind = _UnavailableError if is_transient else errors.ServerError
    return kind(unavailable.error_description, status_code=status, request=request)


class _UnavailableError(errors.TemporarilyUnavailableError):  # type: ignore[misc]
    @property
    def headers(self) -> dict[str, str]:
        return {**super().headers, **retry_after(self.status_code)}


def _custom(denied: Denied, request: Any) -> errors.OAuth2Error:
    return errors.CustomOAuth2Error(error=denied.error, description=denied.error_description, request=request)
