"""The URLs of django-oauth-toolkit, with our registration endpoints: include this instead of `oauth2_provider.urls`."""

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
urlpatterns = dcr_urlpatterns + [pattern for pattern in toolkit.urlpatterns if pattern not in toolkit.dcr_urlpatterns]
