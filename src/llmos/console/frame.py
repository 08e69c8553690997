"""The frame around every page: menu, top bar, language, theme; what is said when things fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from nicegui import ui
from starlette.types import ASGIApp

from llmos.console.client import open_client
from llmos.console.config import ConsoleConfig
from llmos.console.login import login_path
from llmos.console.page import Page, Visit
from llmos.console.session import (
    LANGUAGE_COOKIE,
    LANGUAGES,
    THEME_COOKIE,
    THEMES,
    find_session,
    language_of,
    theme_of,
)
from llmos.console.texts import LANGUAGE_NAMES, Texts, learn
from llmos.console.widgets import Tag, icon_button, label
from llmos.errors import AuthenticationFailed, LLMOSError

NUM_IN_PHONE_BAR = 4
"""Pages that have a place in the bar of a phone; the rest lie behind one more."""
THEME_ICONS = {"auto": "o_contrast", "light": "o_light_mode", "dark": "o_dark_mode"}


def register(
    page: Page,
    pages: Sequence[Page],
    api: ASGIApp,
    config: ConsoleConfig,
    files: Sequence[str],
    *,
    max_image_bytes: int,
) -> None:
    """Give the toolkit a page."""
    learn(page.texts)

    @ui.page(page.path, response_timeout=30.0)
    async def show(request: Request) -> Response | None:
        session = find_session(request.scope)
        if session is None:
            return RedirectResponse(login_path(request.scope, expired=True), 303)
        client = open_client(api, session.key)
        ui.context.client.on_delete(client.aclose)
        texts = Texts(language_of(request.scope))
        visit = Visit(client, texts, session, theme_of(request.scope), config, max_image_bytes)
        _head(page, visit, files)
        try:
            with _shell(page, pages, visit):
                await page.build(visit)
        except AuthenticationFailed:
            return RedirectResponse(login_path(request.scope, expired=True), 303)
        return None


def _head(page: Page, visit: Visit, files: Sequence[str]) -> None:
    """Styles and scripts. The theme is set before anything is drawn, so that nothing flashes."""
    texts = visit.texts
    ui.page_title(f"{texts('nav.' + page.name)} · LLMOS")
    said = {
        "lost": texts("connection.lost"),
        "trying": texts("connection.trying"),
        "expires": visit.session.expires_s,
    }
    styles, script = files
    ui.add_head_html(
        f'<script>document.documentElement.lang = "{texts.tag}";'
        f'document.documentElement.dataset.theme = "{visit.theme}";'
        f"window.llmos = {json.dumps(said)};</script>"
        f'<link rel="stylesheet" href="{styles}"><script defer src="{script}"></script>'
    )
    ui.dark_mode({"auto": None, "light": False, "dark": True}[visit.theme])


class _shell:  # noqa: N801 - a context manager, read as a verb
    """Menu and top bar; what is made inside goes to the page's own place."""

    def __init__(self, page: Page, pages: Sequence[Page], visit: Visit) -> None:
        self._page, self._pages, self._visit = page, pages, visit
        self._body: Any = None

    def __enter__(self) -> None:
        texts = self._visit.texts
        Tag("a", texts("frame.skip"), "skip", href="#content")
        with Tag("div", classes="shell"):
            with Tag("nav", classes="menu", aria_label=texts("frame.menu")):
                _menu(self._page, self._pages, texts)
            with Tag("div", classes="stage"):
                _top_bar(self._page, self._visit)
                classes = f"body page-{self._page.name}"
                self._body = Tag("div", classes=classes, id="content", tabindex="-1")
        self._body.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._body.__exit__(*exc)


def _menu(page: Page, pages: Sequence[Page], texts: Texts) -> None:
    with Tag("div", classes="brand"):
        Tag("span", classes="mark", aria_hidden="true")
        Tag("span", "LLMOS")
    for place, other in enumerate(pages):
        classes = "item" if place < NUM_IN_PHONE_BAR else "item rest"
        here = "page" if other is page else None
        with Tag("a", "", classes, href=other.path, data_key=other.key, aria_current=here):
            label(ui.icon(other.icon), aria_hidden="true")
            Tag("span", texts("nav." + other.name))
    more = ui.button(texts("nav.more"), icon="o_more_horiz").props("flat stack no-caps")
    with more.classes("item more"), ui.menu().props("auto-close"):
        for other in pages[NUM_IN_PHONE_BAR:]:
            name = texts("nav." + other.name)
            ui.menu_item(name, lambda path=other.path: ui.navigate.to(path))


def _top_bar(page: Page, visit: Visit) -> None:
    texts = visit.texts
    with Tag("header", classes="top"):
        Tag("h1", texts("nav." + page.name))
        ui.space()
        theme = THEMES[(THEMES.index(visit.theme) + 1) % len(THEMES)]
        icon_button(
            THEME_ICONS[visit.theme],
            texts("theme." + visit.theme),
            lambda: choose(THEME_COOKIE, theme),
        )
        language = next(one for one in LANGUAGES if one != texts.language)
        switch = ui.button(
            LANGUAGE_NAMES[language], on_click=lambda: choose(LANGUAGE_COOKIE, language)
        )
        label(switch.props("flat dense no-caps").classes("quiet"), lang=Texts(language).tag)
        keys = icon_button("o_keyboard", texts("frame.shortcuts"), lambda: _shortcuts(texts))
        label(keys, data_shortcuts="1")
        icon_button("o_logout", texts("frame.logout"), leave)


def choose(cookie: str, value: str) -> None:
    """Keep a choice in the browser and draw the page with it."""
    ui.run_javascript(
        f'document.cookie = "{cookie}={value}; path=/; max-age=31536000; samesite=lax";'
        "location.reload()"
    )


def leave() -> None:
    """Log out; what the tab has kept of chats goes with it."""
    ui.run_javascript(
        "sessionStorage.clear(); const f = document.createElement('form');"
        "f.method = 'post'; f.action = '/logout';"
        "document.body.append(f); f.submit()"
    )


def _shortcuts(texts: Texts) -> None:
    with ui.dialog() as dialog, ui.card().classes("sheet"):
        Tag("h2", texts("frame.shortcuts"))
        with Tag("dl", classes="keys"):
            for keys, what in texts.shortcuts():
                Tag("dt", keys)
                Tag("dd", what)
    dialog.open()


def fail(visit: Visit, error: LLMOSError) -> None:
    """Tell of an error in place; a key that no longer opens anything leads to the login."""
    if isinstance(error, AuthenticationFailed):
        ui.navigate.to("/login?expired=1")
        return
    ui.notify(
        visit.texts.error(error), type="negative", position="top", timeout=8000, close_button="✕"
    )
