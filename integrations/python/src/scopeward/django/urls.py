"""The URLs of django-oauth-toolkit, with our endpoints for registration and devices: include this instead of `oauth2_provider.urls`."""

from django.urls import path
from oauth2_provider import urls as toolkit

from . import views

app_name = "oauth2_provider"

dcr_urlpatterns = [
    path("register/", views.RegistrationView.as_view(), name="dcr-register"),
    path(
        "register/<str:client_id>/", views.RegistrationManagementView.as_view(), name="dcr-register-management"
    ),
]
device_urlpatterns = [path("device-authorization/", views.DeviceView.as_view(), name="device-authorization")]
_own = {pattern.name for pattern in dcr_urlpatterns + device_urlpatterns}
urlpatterns = dcr_urlpatterns + device_urlpatterns + [pattern for pattern in toolkit.urlpatterns if pattern.name not in _own]
