"""The two questions in the words of django-oauth-toolkit."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from oauth2_provider.models import get_application_model

from .._client import Client
from ..answers import ClientSource, OAuthClient
from .models import Registration

_is_device_authorization = ContextVar("is_device_authorization", default=False)
_SOURCES: dict[str, ClientSource] = {"dcr": "dcr", "cimd": "cimd"}


@functools.cache
def client() -> Client:
    """The client of this process, as the setting `SCOPEWARD` says: the arguments of `scopeward.Client`, and `audience`."""
    return Client(**{name: value for name, value in settings.SCOPEWARD.items() if name != "audience"})


def audiences() -> tuple[str, ...]:
    """What to ask for where a request names no resource."""
    audience = settings.SCOPEWARD.get("audience")
    return () if audience is None else (audience,)


def registration_of(application: Any) -> Registration | None:
    found: Registration | None = Registration.objects.filter(application_id=application.pk).first()
    return found


def oauth_client(application: Any, registration: Registration | None) -> OAuthClient:
    """The client as stored, the same at both moments."""
    grant_types = {"authorization-code": ("authorization_code", "refresh_token"), "client-credentials": ("client_credentials",)}
    grant_type = application.authorization_grant_type
    return OAuthClient(
        client_id=application.client_id,
        source=_SOURCES.get(application.registration_source, "static"),
        client_name=application.name,
        redirect_uris=tuple(application.redirect_uris.split()),
        grant_types=grant_types.get(grant_type, (grant_type,)),
        software_id=registration.software_id if registration else "",
        software_version=registration.software_version if registration else "",
        application_type=registration.application_type if registration else "",
    )


def application_of(client_id: str) -> Any:
    return get_application_model().objects.get(client_id=client_id)


@contextlib.contextmanager
def device_authorization() -> Iterator[None]:
    """While the toolkit checks the request of a device. Parameters of the request cannot tell: all of them are the client's."""
    token = _is_device_authorization.set(True)
    try:
        yield
    finally:
        _is_device_authorization.reset(token)


def is_device_authorization() -> bool:
    return _is_device_authorization.get()
