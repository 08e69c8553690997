"""The console as an ASGI application: NiceGUI's, behind the session and the headers of `guard`.

NiceGUI keeps one application per process in its modules, so there is one Site per process.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import AsyncExitStack
from pathlib import Path

from fastapi import FastAPI
from nicegui import app as toolkit
from nicegui import ui
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from llmos.console.config import ConsoleConfig
from llmos.console.downloads import download, is_download
from llmos.console.found import find_pages
from llmos.console.frame import register
from llmos.console.front import reply
from llmos.console.guard import Sealed, is_same_origin
from llmos.console.login import Login, login_path, redirect
from llmos.console.session import cookie_name, cookies, find_session, header

STATIC = Path(__file__).parent / "static"
OPEN = ("/_nicegui/", "/console/static/")
"""Files that are the same for everybody; what else is there takes a session."""
SOCKETS = "/_nicegui_ws/"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
RECONNECT_S = 10.0
"""How long a page whose browser is gone is kept."""


def static_url(name: str) -> str:
    """Of a file of ours, with its content in the name, so that it may be kept for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/console/static/{name}?{digest}"


class Site:
    """Implements `front.Pages`."""

    def __init__(self, api: ASGIApp, config: ConsoleConfig, max_image_bytes: int) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every call of a page
        self._api = api
        self._styles = static_url("console.css")
        self._login = Login(api, config, self._styles)
        self._stack = AsyncExitStack()
        self._outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self._outer.mount("/console/static", StaticFiles(directory=STATIC))
        head = [self._styles, static_url("console.js")]
        pages = find_pages()
        for page in pages:
            register(page, pages, api, config, head, max_image_bytes=max_image_bytes)
        toolkit.config.quasar_config["loadingBar"] = {"skipHijack": True}  # it has no name for axe
        ui.run_with(
            self._outer,
            title="LLMOS",
            favicon=STATIC / "favicon.svg",
            dark=None,
            language=None,
            binding_refresh_interval=None,
            reconnect_timeout=RECONNECT_S,
            message_history_length=200,
            gzip_middleware_factory=None,
            tailwind=False,
            show_welcome_message=False,
        )
        self._app = GZipMiddleware(Sealed(self._outer), minimum_size=1024, compresslevel=5)

    async def open(self) -> None:
        """Start what the toolkit runs beside its pages."""
        await self._stack.enter_async_context(self._outer.router.lifespan_context(self._outer))

    async def close(self) -> None:
        """Let every page go."""
        for client in list(toolkit.clients()):
            client.delete()
        await self._stack.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._talk(scope, receive, send)
        elif scope["method"] not in SAFE and not is_same_origin(scope):
            await reply(send, 403, b"not from this page\n", b"text/plain")
        elif scope["path"] == "/login":
            await Sealed(self._enter)(scope, receive, send)
        elif scope["path"] == "/logout" and scope["method"] == "POST":
            await self._login.leave(scope, send)
        elif _is_open(scope):
            await self._app(scope, receive, send)
        elif find_session(scope) is not None:
            if is_download(scope):
                await download(self._api, scope, receive, send)
            else:
                await self._app(scope, receive, send)
        elif "text/html" in header(scope, b"accept"):
            was_here = cookie_name(scope) in cookies(scope)
            await redirect(send, login_path(scope, expired=was_here))
        else:
            await reply(send, 401, b"log in first\n", b"text/plain")

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await self._login.enter(scope, receive, send)
        else:
            await self._login.show(scope, send)

    async def _talk(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A websocket of our own pages; a cookie alone does not prove that a page is ours."""
        is_ours = header(scope, b"origin") != "" and is_same_origin(scope)
        is_known = find_session(scope) is not None
        if not (is_ours and is_known and scope["path"].startswith(SOCKETS)):
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)


def _is_open(scope: Scope) -> bool:
    path = scope["path"]
    return path == "/favicon.ico" or (path.startswith(OPEN) and scope["method"] in SAFE)
