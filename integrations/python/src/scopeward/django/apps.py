from django.apps import AppConfig


class ScopewardConfig(AppConfig):  # type: ignore[misc]
    """Stores what clients registered, next to the applications of django-oauth-toolkit."""

    name = "scopeward.django"
    label = "scopeward"
    verbose_name = "Scopeward"
    default_auto_field = "django.db.models.BigAutoField"
