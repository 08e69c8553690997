"""The one door of the server: what a browser asks for goes to the console, all else to the API.

The console and its toolkit are imported when the first page is asked for, in a thread: a server
nobody looks at does not pay for them, neither in time to start nor in memory.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
from typing import Any, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from llmos.console.config import ConsoleConfig
from llmos.console.session import header
from llmos.errors import PluginError

log = logging.getLogger(__name__)

SITE = "llmos.console.site:Site"
TOOLKIT = "nicegui"
EXTRA = "pip install 'llmos[console]'"
OURS = frozenset({"", "console", "login", "logout", "favicon.ico", "_nicegui", "_nicegui_ws"})
"""First segments of paths that are the console's, whoever asks."""


class Pages(Protocol):
    """What `SITE` names: pages over an API, opened once and closed with the server."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Front:
    """An ASGI application over the API's. `api_segments`: first segments of paths of the API;
    `max_image_bytes`: of an image in a message, so that the API takes it."""

    def __init__(
        self,
        api: ASGIApp,
        api_segments: frozenset[str],
        config: ConsoleConfig,
        max_image_bytes: int,
    ) -> None:
        self._api = api
        self._api_segments = api_segments
        self._config = config
        self._max_image_bytes = max_image_bytes
        self._is_installed = importlib.util.find_spec(TOOLKIT) is not None
        self._site: Pages | None = None
        self._opening = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._config.enabled or not self._is_for_pages(scope):
            await self._api(scope, receive, send)
        elif self._is_installed:
            site = self._site or await self._open()
            await site(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == "/":
            await _say_how(scope, send)
        else:
            await self._api(scope, receive, send)

    async def close(self) -> None:
        """Let every page go. Idempotent."""
        site, self._site = self._site, None
        if site is not None:
            await site.close()

    def _is_for_pages(self, scope: Scope) -> bool:
        if scope["type"] == "websocket":
            return True
        segment = scope["path"].split("/", 2)[1] if scope["path"].startswith("/") else "?"
        if segment in OURS:
            return True
        return segment not in self._api_segments and "text/html" in header(scope, b"accept")

    async def _open(self) -> Pages:
        async with self._opening:
            if self._site is None:
                module, _, name = SITE.partition(":")
                found = await asyncio.to_thread(importlib.import_module, module)
                site: Pages = getattr(found, name)(self._api, self._config, self._max_image_bytes)
                await site.open()
                self._site = site
        return self._site


def require_toolkit() -> None:
    """Raises PluginError naming the extra, where the console's toolkit is not installed."""
    if importlib.util.find_spec(TOOLKIT) is None:
        raise PluginError(f"the console needs NiceGUI: {EXTRA}")


async def _say_how(scope: Scope, send: Send) -> None:
    """Where the console would be."""
    if "text/html" in header(scope, b"accept"):
        kind, body = b"text/html; charset=utf-8", HOW_HTML
    else:
        kind, body = b"text/plain; charset=utf-8", HOW_TEXT
    await reply(send, 200, body.encode(), kind)


async def reply(
    send: Send, status: int, body: bytes, kind: bytes, *headers: tuple[bytes, bytes]
) -> None:
    """A whole answer."""
    length = (b"content-length", str(len(body)).encode("ascii"))
    start: dict[str, Any] = {"type": "http.response.start", "status": status}
    await send({**start, "headers": [(b"content-type", kind), length, *headers]})
    await send({"type": "http.response.body", "body": body})


HOW_TEXT = f"""LLMOS answers here. Its web console is not installed; to have it:

  {EXTRA}

and start the server again. The API is at /v1 and /os/v1, described at /openapi.json.
"""

HOW_HTML = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>LLMOS</title>
<style>
body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 40rem; margin: 15vh auto; padding: 0 1rem;
  color-scheme: light dark }}
code {{ padding: .15rem .4rem; border: 1px solid #8886; border-radius: 6px }}
</style>
<h1>LLMOS answers here</h1>
<p>Its web console is not installed. To have it:</p>
<p><code>{EXTRA}</code></p>
<p>and start the server again. The API is at <code>/v1</code> and <code>/os/v1</code>, described
at <a href="/openapi.json">/openapi.json</a>.</p>
</html>
"""
