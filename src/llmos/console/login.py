"""Logging in and out: plain pages, without the toolkit, so that nothing of it runs before a key."""

from __future__ import annotations

import html
from urllib.parse import parse_qs, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send

from llmos.console import session
from llmos.console.client import open_client
from llmos.console.config import ConsoleConfig
from llmos.console.front import reply
from llmos.console.texts import Texts
from llmos.errors import AuthenticationFailed, LLMOSError

MAX_FORM_BYTES = 8192
HTML = b"text/html; charset=utf-8"


class Login:
    """`/login` and `/logout`, over the API that knows the keys."""

    def __init__(self, api: ASGIApp, config: ConsoleConfig, styles: str) -> None:
        self._api = api
        self._config = config
        self._styles = styles

    async def show(self, scope: Scope, send: Send, problem: str = "", status: int = 200) -> None:
        """The form."""
        texts = Texts(session.language_of(scope))
        query = parse_qs(scope["query_string"].decode("latin-1"))
        why = problem or ("login.expired" if "expired" in query else "")
        page = _page(texts, session.theme_of(scope), why, _next_of(query), self._styles)
        no_store = (b"cache-control", b"no-store")
        await reply(send, status, page.encode(), HTML, no_store)

    async def enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A key was given: a cookie and the page that was asked for, or the form again."""
        form = parse_qs((await _read(receive)).decode("utf-8", "replace"))
        key = form.get("key", [""])[0].strip()
        try:
            cookie = session.login_cookie(scope, key, self._config.session_s)
            async with open_client(self._api, key) as client:
                await client.models.list()
        except (ValueError, AuthenticationFailed):
            await self.show(scope, send, "login.wrong", 401)
        except LLMOSError:
            await self.show(scope, send, "login.failed", 503)
        else:
            await redirect(send, _next_of(form), (b"set-cookie", cookie))

    async def leave(self, scope: Scope, send: Send) -> None:
        """Forget the key."""
        await redirect(send, "/login", (b"set-cookie", session.logout_cookie(scope)))


async def redirect(send: Send, path: str, *headers: tuple[bytes, bytes]) -> None:
    """To another page of ours, by GET."""
    await reply(send, 303, b"", HTML, (b"location", path.encode("ascii")), *headers)


def login_path(scope: Scope, *, expired: bool = False) -> str:
    """Where to log in, and come back from."""
    asked = scope["path"] if scope["path"] not in {"/", "/login", "/logout"} else ""
    query = {"next": asked} if asked else {}
    if expired:
        query["expired"] = "1"
    return "/login" + (f"?{urlencode(query)}" if query else "")


def _next_of(form: dict[str, list[str]]) -> str:
    """A path of this server and of nothing else: `//host` and `/\\host` lead away."""
    path = form.get("next", ["/"])[0]
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_ours and path.isascii() and path.isprintable() else "/"


async def _read(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body") or len(body) > MAX_FORM_BYTES:
            return body[:MAX_FORM_BYTES]


def _page(texts: Texts, theme: str, problem: str, target: str, styles: str) -> str:
    said = f'<p class="problem" role="alert">{texts(problem)}</p>' if problem else ""
    return f"""<!doctype html>
<html lang="{texts.tag}" data-theme="{theme}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{texts("login.title")} · LLMOS</title>
<link rel="icon" href="/favicon.ico"><link rel="stylesheet" href="{styles}"></head>
<body class="login"><main><h1><span class="mark" aria-hidden="true"></span>LLMOS</h1>
<form method="post" action="/login"><label for="key">{texts("login.key")}</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus
 spellcheck="false" aria-describedby="help"><input type="hidden" name="next"
 value="{html.escape(target)}">{said}
<button type="submit">{texts("login.enter")}</button>
<p id="help" class="help">{texts("login.help")}</p></form></main>
<script>
const given = new URLSearchParams(location.hash.slice(1)).get("key");
if (given) {{
  document.getElementById("key").value = given;
  history.replaceState(null, "", location.pathname + location.search);
  document.querySelector("button").focus();
}}
</script></body></html>
"""
