"""Makes django-oauth-toolkit ask Scopeward. A Django app: see the guide for the settings.

    INSTALLED_APPS = [..., "oauth2_provider", "scopeward.django"]
    OAUTH2_PROVIDER = {"OAUTH2_VALIDATOR_CLASS": "scopeward.django.validator.ScopewardValidator", ...}
    SCOPEWARD = {"target": "127.0.0.1:50551"}
    urlpatterns = [path("o/", include("scopeward.django.urls"))]
"""
