"""django-oauth-toolkit, in one file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import demo
import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application


def make_app(target: str, base: str) -> Any:
    folder = tempfile.mkdtemp(prefix="scopeward-django-")
    settings.configure(
        SECRET_KEY="a key for this example alone",
        ALLOWED_HOSTS=["localhost"],
        ROOT_URLCONF=__name__,
        USE_TZ=True,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(folder, "db.sqlite3")}},
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "oauth2_provider",
            "scopeward.django",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        LOGIN_URL="/login/",
        SCOPEWARD={"target": target},
        OAUTH2_PROVIDER={
            "DCR_ENABLED": True,
            "DCR_REGISTRATION_PERMISSION_CLASSES": ("oauth2_provider.dcr.AllowAllDCRPermission",),
            "OAUTH2_VALIDATOR_CLASS": "scopeward.django.validator.ScopewardValidator",
            "SCOPES_BACKEND_CLASS": "scopeward.django.scopes.ScopewardScopes",
            "SCOPES": {"openid": "Your identity", "offline_access": "Stay signed in", "mcp:read": "Read"},
        },
    )
    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    User.objects.create_user("user", password="password")
    return get_wsgi_application()


def login(request: Any) -> Any:
    """Signs in whoever comes."""
    from django.contrib.auth import login
    from django.contrib.auth.models import User
    from django.http import HttpResponseRedirect

    login(request, User.objects.get(), "django.contrib.auth.backends.ModelBackend")
    return HttpResponseRedirect(request.GET["next"])


def __getattr__(name: str) -> Any:
    """The URLs, once the settings are there."""
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.urls import include, path

    return [path("login/", login), path("o/", include("scopeward.django.urls"))]


EXAMPLE = demo.Example(
    make_app, is_asgi=False, register="/o/register/", authorize="/o/authorize/", token="/o/token/"
)

if __name__ == "__main__":
    demo.main(EXAMPLE)
