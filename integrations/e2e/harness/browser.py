"""A browser without a screen: follows redirects, signs in, and agrees to what it is asked."""

from __future__ import annotations

import html.parser
import http.cookiejar
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any


USER = "tester"
"""The name and the password of whoever logs in."""


@dataclass
class Page:
    """Where a login ended."""

    url: str
    """The redirect URI with its parameters. With `error=page` if the server showed a page of its own instead."""
    text: str = ""
    """That page, without markup."""


class Browser:
    def __init__(self, redirect_uri: str) -> None:
        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        # As browsers do, it sends secure cookies to loopback without TLS.
        policy = http.cookiejar.DefaultCookiePolicy(rfc2965=True, secure_protocols=("http", "https"))
        jar = http.cookiejar.CookieJar(policy)
        self._opener = urllib.request.build_opener(
            Stay, urllib.request.HTTPCookieProcessor(jar), urllib.request.ProxyHandler({})
        )
        self._redirect_uri = redirect_uri

    def visit(self, url: str) -> Page:
        body: bytes | None = None
        for _ in range(15):
            headers = {"Accept": "text/html", "Origin": _origin(url), "Referer": url}
            try:
                with self._opener.open(urllib.request.Request(url, body, headers), timeout=60) as response:
                    page = response.read().decode()
            except urllib.error.HTTPError as error:
                location = error.headers.get("Location")
                if location is None:
                    return self._stopped(f"HTTP {error.code}: {_text(error.read().decode())}")
                url, body = urllib.parse.urljoin(url, location), None
                if url.startswith(self._redirect_uri):
                    return Page(url)
                continue
            form = _Form()
            form.feed(page)
            if not form.fields:
                return self._stopped(_text(page))
            url, body = urllib.parse.urljoin(url, form.action or url), urllib.parse.urlencode(form.fields).encode()
        return self._stopped("too many pages")

    def _stopped(self, text: str) -> Page:
        return Page(f"{self._redirect_uri}?error=page", text)


def _origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)).strip()[:300]


class _Form(html.parser.HTMLParser):
    """The hidden fields of a form, the user's name and password, and its button that says yes."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        members = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = members.get("action", "")
        name, value = members.get("name", ""), members.get("value", "")
        is_yes = value.lower() in ("authorize", "approve", "allow", "yes")
        if name in ("username", "password"):
            self.fields.append((name, USER))
        if name and ((tag == "input" and members.get("type") == "hidden") or (tag in ("input", "button") and is_yes)):
            self.fields.append((name, value))
