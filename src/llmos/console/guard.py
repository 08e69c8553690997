"""What stands before every page: headers that keep others out, the same-origin rule, the session.

Pages come from this server alone: the policy lets a browser load and connect to nothing else, and
run no script that did not come with a nonce. `unsafe-eval` and inline styles are what NiceGUI
needs: Vue compiles its templates in the browser.
"""

from __future__ import annotations

import re
import secrets
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmos.console.session import header

_SCRIPT = re.compile(rb"<script(?=[\s>])")
_PAGE = b"text/html"

FIXED = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


def policy(nonce: str) -> bytes:
    """The Content-Security-Policy of a page whose scripts carry `nonce`."""
    rules = (
        "default-src 'self'",
        f"script-src 'self' 'nonce-{nonce}' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
    return "; ".join(rules).encode("ascii")


def is_same_origin(scope: Scope) -> bool:
    """Whether a page of ours asks, as far as the browser tells.

    Browsers send `Origin` with every websocket and every request that changes something; whoever
    sends none is no browser with somebody's cookie.
    """
    origin = header(scope, b"origin")
    if not origin:
        return header(scope, b"sec-fetch-site") in {"", "same-origin", "none"}
    return urlsplit(origin).netloc == header(scope, b"host")


class Sealed:
    """Pages with our headers, every script of theirs marked as ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send = _Sealer(send).send
        await self._app(scope, receive, send)


class _Sealer:
    """One answer. A page is held until it is whole; what is no page passes as it comes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *FIXED]}
            if _is_page(message):
                self._start = message
                return
        elif self._start is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_page(self._start)
            return
        await self._send(message)

    async def _send_page(self, start: Message) -> None:
        nonce = secrets.token_urlsafe(18)
        body = _SCRIPT.sub(b'<script nonce="%s"' % nonce.encode("ascii"), self._body)
        kept = [pair for pair in start["headers"] if pair[0] != b"content-length"]
        added = [
            (b"content-length", str(len(body)).encode("ascii")),
            (b"content-security-policy", policy(nonce)),
        ]
        await self._send({**start, "headers": [*kept, *added]})
        await self._send({"type": "http.response.body", "body": body})


def _is_page(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(_PAGE)
        for name, value in start["headers"]
    )
