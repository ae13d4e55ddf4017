"""The scopes that the consent page of django-oauth-toolkit shows."""

from __future__ import annotations

from oauth2_provider.scopes import SettingsScopes


class _Texts(dict[str, str]):
    def __missing__(self, scope: str) -> str:
        return scope


class ScopewardScopes(SettingsScopes):  # type: ignore[misc]
    """The setting `SCOPES` has the texts; a scope of the policy that has none there is shown by its name, not an error."""

    def get_all_scopes(self) -> dict[str, str]:
        return _Texts(super().get_all_scopes())
