"""Authlib's authorization server in Flask."""

from __future__ import annotations

import html
from typing import Any

import authlib_core
import demo
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from flask import Flask, request

from scopeward import Client
from scopeward.authlib import with_scopeward


def make_app(target: str, base: str) -> Any:
    app = Flask(__name__)
    app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
    store = authlib_core.Store()
    server = with_scopeward(AuthorizationServer(app, store.query_client, store.save_token), Client(target))
    authlib_core.register(server, store)

    @app.post("/register")
    def register() -> Any:
        return server.create_endpoint_response("client_registration")

    @app.route("/register/<client_id>", methods=["GET", "PUT"])
    def configure(client_id: str) -> Any:
        return server.create_endpoint_response("client_configuration")

    @app.route("/authorize", methods=["GET", "POST"])
    def authorize() -> Any:
        try:
            grant = server.get_consent_grant(end_user="user")
        except OAuth2Error as error:
            return server.handle_error_response(request, error)
        if request.method == "POST":
            return server.create_authorization_response(grant=grant, grant_user="user")
        name = html.escape(str(grant.request.client.client_metadata.get("client_name")))
        return authlib_core.CONSENT.format(client=name, scope=html.escape(grant.request.scope))

    @app.post("/token")
    def token() -> Any:
        return server.create_token_response()

    app.extensions["store"] = store
    return app


EXAMPLE = demo.Example(make_app, is_asgi=False)

if __name__ == "__main__":
    demo.main(EXAMPLE)
