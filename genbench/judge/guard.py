"""Who may talk to the page: one ASGI layer in front of every route, which also sets the headers of every answer.

Host must be a name the server was started under (against DNS rebinding); whatever changes something must be a POST from a page of
this very origin; at an address that others can reach, everything needs the token.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 4096
"""Bytes of a request; an answer has less than 100."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # no-referrer would turn the Origin of a form's POST into "null"
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
}
_FROM_ELSEWHERE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0"><title>One moment</title>'
    '<p><a href="">Go on</a></p></html>'
)
"""A browser that follows a link from another site holds strict cookies back; asked by this page, it sends them."""


@dataclass(frozen=True)
class Gate:
    """What is let in."""

    hosts: frozenset[str]
    """Values of the Host header: ``127.0.0.1:8420``, lower case."""
    token: str = ""
    """What everybody must show, once, in the address; empty on a loopback address."""

    @property
    def cookie(self) -> str:
        """What remembers the token in a browser. Cookies know no ports: another page of this machine has another."""
        return f"genbench-judge-access-{hashlib.sha256(self.token.encode()).hexdigest()[:8]}"


class Guard:
    """The layer."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self.app = app
        self.gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on and set headers."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = _refusal(scope, self.gate)
        if refusal is not None:
            await refusal(scope, receive, sealed)
            return
        await self.app(scope, receive, sealed)


def _refusal(scope: Scope, gate: Gate) -> Response | None:
    """The answer to a request that is not let in, or None."""
    headers, method = Headers(scope=scope), scope["method"]
    hosts = headers.getlist("host")
    if len(hosts) != 1 or hosts[0].lower() not in gate.hosts:
        return PlainTextResponse("This name is not known here. Use the address that genbench judge serve printed.", 421)
    if method not in ("GET", "HEAD", "POST"):
        return PlainTextResponse("Method not allowed.", 405, {"Allow": "GET, HEAD, POST"})
    if method == "POST":
        origins = headers.getlist("origin")
        own = {f"{scheme}://{hosts[0].lower()}" for scheme in ("http", "https")}
        if len(origins) != 1 or origins[0].lower() not in own or headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("Only pages of this server may send anything.", 403)
        length = headers.get("content-length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MOST_BODY:
            return PlainTextResponse(f"At most {MOST_BODY} bytes, and their number in the header.", 413)
    if gate.token and not _equal(cookie(headers, gate.cookie), gate.token):
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if method == "POST" or not _equal(given, gate.token):
            return _elsewhere(headers) or PlainTextResponse("Open the whole link that you were given, token and all.", 403)
        entered = RedirectResponse("/", 303)
        entered.set_cookie(gate.cookie, gate.token, httponly=True, samesite="strict")
        return entered
    return _elsewhere(headers) if method == "GET" else None


def _elsewhere(headers: Headers) -> Response | None:
    """For a request that another site's link led to, whatever other cookies it carries."""
    return HTMLResponse(_FROM_ELSEWHERE) if headers.get("sec-fetch-site") == "cross-site" else None


def cookie(headers: Headers, name: str) -> str:
    """The value of a cookie; empty where there is none."""
    return cookie_parser(headers.get("cookie", "")).get(name, "")


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
