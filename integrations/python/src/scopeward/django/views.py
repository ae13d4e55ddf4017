"""The endpoints of django-oauth-toolkit that register clients (RFC 7591, RFC 7592), and the one where devices begin (RFC 8628)."""

from __future__ import annotations

import json
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from oauth2_provider.views import (
    DeviceAuthorizationView,
    DynamicClientRegistrationManagementView,
    DynamicClientRegistrationView,
)

from .._adapter import retry_after
from ..errors import Denied, Unavailable
from . import asking
from .models import Registration


class RegistrationView(DynamicClientRegistrationView):  # type: ignore[misc]
    """Registers, stores the scope of the answer, and returns it. A denial leaves no application."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        with transaction.atomic():
            response: HttpResponse = super().post(request, *args, **kwargs)
            return _decided(request, response) if response.status_code == 201 else response


class RegistrationManagementView(DynamicClientRegistrationManagementView):  # type: ignore[misc]
    """Reads and updates a registration with its scope. A denial changes nothing."""

    def get(self, request: HttpRequest, client_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        response: HttpResponse = super().get(request, client_id, *args, **kwargs)
        if response.status_code != 200:
            return response
        registration = asking.registration_of(asking.application_of(client_id))
        return _with_scope(response, registration.scope) if registration else response

    def put(self, request: HttpRequest, client_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        with transaction.atomic():
            response: HttpResponse = super().put(request, client_id, *args, **kwargs)
            return _decided(request, response) if response.status_code == 200 else response


class DeviceView(DeviceAuthorizationView):  # type: ignore[misc]
    """Gives a code to a device that may have what it asks for. The grant is stored with the scope of the answer."""

    def create_device_authorization_response(self, request: HttpRequest) -> tuple[dict[str, str], Any, int]:
        with asking.device_authorization():
            headers, body, status = super().create_device_authorization_response(request)
        if status != 200:
            return headers, body, status
        application = asking.application_of(request.POST["client_id"])
        registration = asking.registration_of(application)
        try:
            answer = asking.client().check_authorize_scopes(
                scope=request.POST.get("scope"),
                registered_scope=registration.scope if registration else None,
                audiences=request.POST.getlist("resource") or asking.audiences(),
                client=asking.oauth_client(application, registration),
            )
        except (Denied, Unavailable) as failure:
            return retry_after(failure.http_status), json.dumps(failure.oauth_error()), failure.http_status
        # The grant is made of what was posted.
        request.POST = form = request.POST.copy()
        form["scope"] = answer.scope
        # With oauthlib 4, and not a member of RFC 8628.
        return headers, {name: value for name, value in body.items() if name != "scope"}, status


def _decided(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Asks for what was just stored; rolls back where the answer is no, or there is none."""
    metadata: dict[str, Any] = json.loads(request.body)
    scope = metadata.get("scope")
    if scope is not None and not isinstance(scope, str):
        return _refused("invalid_client_metadata", "scope is not a string", 400)
    application = asking.application_of(json.loads(response.content)["client_id"])
    stored = asking.registration_of(application)
    claims = {
        name: value
        for name in ("software_id", "software_version", "application_type")
        if isinstance(value := metadata.get(name), str)
    }
    try:
        answer = asking.client().expand_registration_scopes(
            scope=scope,
            client=asking.oauth_client(application, Registration(application=application, **claims)),
            audiences=asking.audiences(),
            previous_scope=stored.scope if stored else None,
        )
    except (Denied, Unavailable) as failure:
        return _refused(failure.error, failure.error_description, failure.http_status)
    Registration(application=application, scope=answer.scope, **claims).save()
    return _with_scope(response, answer.scope)


def _refused(error: str, description: str, status: int) -> HttpResponse:
    transaction.set_rollback(True)
    return JsonResponse({"error": error, "error_description": description}, status=status, headers=retry_after(status))


def _with_scope(response: HttpResponse, scope: str) -> HttpResponse:
    return JsonResponse({**json.loads(response.content), "scope": scope}, status=response.status_code)
