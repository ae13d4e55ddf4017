#!/usr/bin/env python3
"""Registers a client, logs a user in as a browser does, and redeems the code: login.py REGISTERED ASKED

Prints which scopes the client holds, and which its access token has. `-` leaves a scope out. KEYCLOAK_URL and REALM say where,
DEMO_USER and DEMO_PASSWORD who logs in.
"""

import base64
import hashlib
import html
import json
import os
import re
import secrets
import sys
import urllib.error
import urllib.request
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

REALM = os.environ.get("KEYCLOAK_URL", "http://localhost:8080") + "/realms/" + os.environ.get("REALM", "mcp")
USER = {"username": os.environ.get("DEMO_USER", "alice"), "password": os.environ.get("DEMO_PASSWORD", "alice")}
CALLBACK = "http://127.0.0.1:33418/callback"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Hands redirects to the caller."""

    def redirect_request(self, *arguments: object) -> None:
        return None


# Browsers send secure cookies to localhost over HTTP as well.
COOKIES = CookieJar(DefaultCookiePolicy(secure_protocols=("http", "https")))
BROWSER = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(COOKIES), NoRedirect)


def send(url: str, body: bytes | None = None, content_type: str = "application/x-www-form-urlencoded") -> tuple[str, str]:
    """Returns where the answer redirects to, if it does, and its body."""
    request = urllib.request.Request(url, body, {"Content-Type": content_type} if body else {})
    try:
        with BROWSER.open(request) as answer:
            return "", answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.headers.get("Location", ""), answer.read().decode()
    except urllib.error.URLError as error:
        sys.exit(f"{url.split('?')[0]}: {error.reason}")


def scope(text: str) -> dict[str, str]:
    """The parameter; nothing for `-`."""
    return {} if text == "-" else {"scope": text}


def show(answer: dict[str, str]) -> str:
    """The scopes in alphabetical order, since Keycloak has none."""
    return " ".join(sorted(answer["scope"].split()))


def form(page: str) -> tuple[str, dict[str, str]]:
    """The form of a page as the user fills it in: logs in, and agrees."""
    action = re.search(r'<form[^>]*\saction="([^"]*)"', page)
    if action is None:
        sys.exit("neither a form nor a redirect: " + re.sub(r"<[^>]*>|\s+", " ", page)[:300])
    inputs = [dict(re.findall(r'([\w-]+)\s*=\s*"([^"]*)"', tag)) for tag in re.findall(r"<input\b[^>]*>", page)]
    fields = {field["name"]: html.unescape(field.get("value", "")) for field in inputs if field.get("name", "cancel") != "cancel"}
    return html.unescape(action[1]), fields | {name: value for name, value in USER.items() if name in fields}


def main(registered: str, asked: str) -> None:
    metadata = {"client_name": "Demo", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none", **scope(registered)}
    client = json.loads(send(REALM + "/clients-registrations/openid-connect", json.dumps(metadata).encode(), "application/json")[1])
    if "error" in client:
        print(f"not registered: {client['error']}: {client['error_description']}")
        return
    print("registered:", show(client))

    verifier = secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    query = {"response_type": "code", "client_id": client["client_id"], "redirect_uri": CALLBACK, "state": "demo",
             "code_challenge": challenge, "code_challenge_method": "S256", **scope(asked)}
    url = f"{REALM}/protocol/openid-connect/auth?{urlencode(query)}"
    body = None
    while not url.startswith(CALLBACK):
        location, page = send(url, body)
        if location:
            url, body = urljoin(url, location), None
        else:
            action, fields = form(page)
            url, body = urljoin(url, action), urlencode(fields).encode()
    answer = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    if "error" in answer:
        print(f"denied: {answer['error']}: {answer['error_description']}")
        return

    redeem = {"grant_type": "authorization_code", "client_id": client["client_id"], "code": answer["code"],
              "redirect_uri": CALLBACK, "code_verifier": verifier}
    print("granted:", show(json.loads(send(REALM + "/protocol/openid-connect/token", urlencode(redeem).encode())[1])))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
