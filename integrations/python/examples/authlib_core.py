"""What the two examples of Authlib share: a client, a code and tokens in memory, the grants and the endpoints."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc7591 import ClientRegistrationEndpoint
from authlib.oauth2.rfc7592 import ClientConfigurationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge


@dataclass
class StoredClient(ClientMixin):  # type: ignore[misc]
    client_id: str
    client_metadata: dict[str, Any]

    def get_client_id(self) -> str:
        return self.client_id

    @property
    def client_info(self) -> dict[str, Any]:
        return {"client_id": self.client_id}

    def get_default_redirect_uri(self) -> str:
        return str(self.client_metadata["redirect_uris"][0])

    def get_allowed_scope(self, scope: str | None) -> str:
        allowed = str(self.client_metadata.get("scope", "")).split()
        return " ".join(item for item in (scope or "").split() if item in allowed)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.client_metadata["redirect_uris"]

    def check_client_secret(self, client_secret: str) -> bool:
        return False

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "none"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in ("authorization_code", "refresh_token")


@dataclass
class StoredCode(AuthorizationCodeMixin):  # type: ignore[misc]
    code: str
    client_id: str
    redirect_uri: str
    scope: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


@dataclass
class StoredToken(TokenMixin):  # type: ignore[misc]
    client_id: str
    token: dict[str, Any]
    issued_at: float = field(default_factory=time.time)

    def check_client(self, client: StoredClient) -> bool:
        return self.client_id == client.client_id

    def get_scope(self) -> str:
        return str(self.token.get("scope", ""))

    def get_expires_in(self) -> int:
        return 3600

    def is_revoked(self) -> bool:
        return False

    def is_expired(self) -> bool:
        return False

    def get_user(self) -> str:
        return "user"


@dataclass
class Store:
    clients: dict[str, StoredClient] = field(default_factory=dict)
    codes: dict[str, StoredCode] = field(default_factory=dict)
    tokens: list[StoredToken] = field(default_factory=list)

    def query_client(self, client_id: str) -> StoredClient | None:
        return self.clients.get(client_id)

    def save_token(self, token: dict[str, Any], request: Any) -> None:
        self.tokens.append(StoredToken(request.client.client_id, token))


def register(server: Any, store: Store) -> None:
    """Grants and endpoints, as for any server of Authlib."""

    class Codes(grants.AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ["none"]

        def save_authorization_code(self, code: str, request: Any) -> None:
            assert type(request.client) is StoredClient
            store.codes[code] = StoredCode(
                code,
                request.client.client_id,
                request.payload.redirect_uri,
                request.scope,
                request.payload.data["code_challenge"],
                request.payload.data["code_challenge_method"],
            )

        def query_authorization_code(self, code: str, client: StoredClient) -> StoredCode | None:
            found = store.codes.get(code)
            return found if found and found.client_id == client.client_id else None

        def delete_authorization_code(self, authorization_code: StoredCode) -> None:
            del store.codes[authorization_code.code]

        def authenticate_user(self, authorization_code: StoredCode) -> str:
            return "user"

    class Refresh(grants.RefreshTokenGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ["none"]
        INCLUDE_NEW_REFRESH_TOKEN = True

        def authenticate_refresh_token(self, refresh_token: str) -> StoredToken | None:
            return next((token for token in store.tokens if token.token.get("refresh_token") == refresh_token), None)

        def authenticate_user(self, refresh_token: StoredToken) -> str:
            return "user"

        def revoke_old_credential(self, refresh_token: StoredToken) -> None:
            store.tokens.remove(refresh_token)

    class Registration(ClientRegistrationEndpoint):  # type: ignore[misc]
        def authenticate_token(self, request: Any) -> str:
            return "anybody"

        def get_server_metadata(self) -> dict[str, Any]:
            return {}  # no scopes_supported: the policy has them

        def generate_client_info(self, request: Any) -> dict[str, Any]:
            """Without a secret: these clients are public, and some authenticate with a secret that they were given."""
            info = super().generate_client_info(request)
            return {name: value for name, value in info.items() if not name.startswith("client_secret")}

        def save_client(self, info: dict[str, Any], metadata: dict[str, Any], request: Any) -> StoredClient:
            client = store.clients[info["client_id"]] = StoredClient(info["client_id"], metadata)
            return client

    class Configuration(ClientConfigurationEndpoint):  # type: ignore[misc]
        """Anybody may read and update a client here; a real server checks the registration access token."""

        def authenticate_token(self, request: Any) -> Any:
            class AnyToken:
                def check_client(self, client: StoredClient) -> bool:
                    return True

            return AnyToken()

        def authenticate_client(self, request: Any) -> StoredClient | None:
            return store.query_client(request.uri.rpartition("/")[2])

        def check_permission(self, client: StoredClient, request: Any) -> bool:
            return True

        def revoke_access_token(self, token: Any, request: Any) -> None:
            pass

        def update_client(self, client: StoredClient, metadata: dict[str, Any], request: Any) -> StoredClient:
            client.client_metadata = {**client.client_metadata, **metadata}
            return client

        def generate_client_registration_info(self, client: StoredClient, request: Any) -> dict[str, Any]:
            return {}

        def get_server_metadata(self) -> dict[str, Any]:
            return {}

    server.register_grant(Codes, [CodeChallenge(required=True)])
    server.register_grant(Refresh)
    server.register_endpoint(Registration)
    server.register_endpoint(Configuration)


CONSENT = """<!doctype html><form method="post"><p>{client} asks for: {scope}</p>
<button name="answer" value="approve">Approve</button></form>"""
