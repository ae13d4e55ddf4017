"""What a client registered. The applications of django-oauth-toolkit have no scope."""

from __future__ import annotations

from django.db import models
from oauth2_provider.settings import oauth2_settings


class Registration(models.Model):  # type: ignore[misc]
    """The registration of one application, as Scopeward answered it. Gone with the application."""

    application = models.OneToOneField(
        oauth2_settings.APPLICATION_MODEL,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="scopeward_registration",
    )
    scope = models.TextField()
    # Claims that applications have no field for, and that rules of the policy may ask for.
    software_id = models.TextField(blank=True)
    software_version = models.TextField(blank=True)
    application_type = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"{self.application_id}: {self.scope}"
