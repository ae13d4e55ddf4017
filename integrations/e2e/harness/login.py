#!/usr/bin/env python3
"""A client that registers, has a user log in, redeems the code and refreshes: login.py ISSUER REGISTERED ASKED

Prints which scopes each answer has. `-` leaves a scope out. With --client ID in the place of a registration it is a client from before.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import secrets
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from browser import Browser

REDIRECT_URI = "http://127.0.0.1:33418/callback"


class Failure(Exception):
    """An OAuth error, as the client got it."""

    def __init__(self, status: int, answer: dict[str, Any]) -> None:
        super().__init__(f"{answer.get('error')}: {answer.get('error_description', answer)}")
        self.status = status
        self.answer = answer


def call(url: str, body: dict[str, Any] | None = None, is_form: bool = False) -> dict[str, Any]:
    content = None if body is None else (urlencode(body) if is_form else json.dumps(body)).encode()
    kind = "application/x-www-form-urlencoded" if is_form else "application/json"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, content, {"Content-Type": kind}), timeout=60) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        try:
            raise Failure(error.code, dict(json.loads(text))) from None
        except ValueError:
            raise Failure(error.code, {"error": f"HTTP {error.code}", "error_description": text[:500]}) from None


class Login:
    """A public client of one issuer, which it discovers."""

    def __init__(self, issuer: str, at: str | None = None) -> None:
        """`at` is where the server is, if not at its public URL."""
        base = issuer.partition("/realms/")[0]
        self.server = call(f"{at or base}{issuer.removeprefix(base)}/.well-known/openid-configuration")
        if at is not None:
            self.server = {name: value.replace(base, at) if isinstance(value, str) else value for name, value in self.server.items()}

    def register(self, scope: str | None, **more: Any) -> dict[str, Any]:
        metadata = {
            "client_name": "Example Tool",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            **({} if scope is None else {"scope": scope}),
            **more,
        }
        return call(self.server["registration_endpoint"], metadata)

    def authorize(self, client_id: str, scope: str | None, **more: str) -> dict[str, str]:
        """What came to the redirect URI, and the verifier of the code."""
        verifier = secrets.token_urlsafe(48)
        query = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": REDIRECT_URI,
            "state": secrets.token_urlsafe(16),
            "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("="),
            "code_challenge_method": "S256",
            **({} if scope is None else {"scope": scope}),
            **more,
        }
        page = Browser(REDIRECT_URI).visit(f"{self.server['authorization_endpoint']}?{urlencode(query)}")
        answer = dict(parse_qsl(urlsplit(page.url).query))
        if answer.get("state") != query["state"] and "error" not in answer:
            raise Failure(302, {"error": "state is lost"})
        if "error" in answer:
            raise Failure(302, {"error_description": page.text, **answer})
        return {**answer, "code_verifier": verifier}

    def redeem(self, client_id: str, answer: dict[str, str]) -> dict[str, Any]:
        form = {"grant_type": "authorization_code", "client_id": client_id, "redirect_uri": REDIRECT_URI}
        form |= {name: answer[name] for name in ("code", "code_verifier")}
        return call(self.server["token_endpoint"], form, is_form=True)

    def login(self, client_id: str, scope: str | None, **more: str) -> dict[str, Any]:
        return self.redeem(client_id, self.authorize(client_id, scope, **more))

    def refresh(self, client_id: str, tokens: dict[str, Any]) -> dict[str, Any]:
        form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": tokens["refresh_token"]}
        return call(self.server["token_endpoint"], form, is_form=True)


def shown(answer: dict[str, Any]) -> str:
    """In alphabetical order, since some servers have none."""
    return " ".join(sorted(answer.get("scope", "").split())) or "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("issuer")
    parser.add_argument("registered")
    parser.add_argument("asked")
    parser.add_argument("--client", metavar="ID")
    arguments = parser.parse_args()
    registered, asked = (None if scope == "-" else scope for scope in (arguments.registered, arguments.asked))
    login = Login(arguments.issuer)
    try:
        client_id = arguments.client
        if client_id is None:
            client = login.register(registered)
            client_id = client["client_id"]
            print("registered:", shown(client))
    except Failure as failure:
        print("not registered:", failure)
        return
    try:
        tokens = login.login(client_id, asked)
    except Failure as failure:
        print("denied:", failure)
        return
    print("granted:", shown(tokens))
    if "refresh_token" in tokens:
        print("refreshed:", shown(login.refresh(client_id, tokens)))


if __name__ == "__main__":
    main()
