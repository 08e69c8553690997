"""Every page: it opens fast, without errors, for everybody's eyes and hands, in both languages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from llmos.console.found import find_pages
from tests.browser.conftest import DESK, PHONE, Visitor

PATHS = [page.path for page in find_pages()]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
MAX_INTERACTIVE_S = 1.5
RUN = "rules => axe.run(document, {runOnly: rules})"


def _violations(page: Any, source: str) -> list[str]:
    page.evaluate(source)
    found = page.evaluate(RUN, RULES)["violations"]
    return [f"{v['id']}: {node['html'][:200]}" for v in found for node in v["nodes"]]


@pytest.mark.parametrize(
    ("size", "theme"),
    [
        pytest.param(DESK, "light", id="desk-light"),
        pytest.param(DESK, "dark", id="desk-dark", marks=pytest.mark.deep),
        pytest.param(PHONE, "light", id="phone-light", marks=pytest.mark.deep),
        pytest.param(PHONE, "dark", id="phone-dark"),
    ],
)
def test_no_page_keeps_anybody_out(
    visitor: Callable[..., Visitor], axe: str, size: tuple[int, int], theme: str
) -> None:
    me = visitor(size, color_scheme=theme, reduced_motion="reduce").log_in()
    found = {path: _violations(me.go(path).page, axe) for path in PATHS}
    assert found == {path: [] for path in PATHS}


def test_no_page_is_wider_than_a_phone(visitor: Callable[..., Visitor]) -> None:
    me = visitor(PHONE).log_in()
    for path in PATHS:
        width = me.go(path).page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE[0], path


def test_every_page_is_interactive_soon(me: Visitor) -> None:
    took = {}
    for path in PATHS:
        me.go(path)  # its files are in the browser's cache from here on
        began = time.perf_counter()
        me.go(path)
        took[path] = time.perf_counter() - began
    print({path: f"{seconds:.2f} s" for path, seconds in took.items()})
    assert max(took.values()) <= MAX_INTERACTIVE_S, took


def test_the_whole_page_is_in_chinese(visitor: Callable[..., Visitor]) -> None:
    me = visitor(locale="zh-CN").log_in()
    assert me.page.locator("h1").inner_text() == "对话"
    assert me.page.evaluate("document.documentElement.lang") == "zh-CN"
    me.page.get_by_role("button", name="English").click()
    me.page.get_by_role("heading", name="Chat", exact=True).wait_for()
    assert me.page.evaluate("document.documentElement.lang") == "en"


def test_the_theme_is_kept(me: Visitor) -> None:
    dark = "document.documentElement.dataset.theme === 'dark'"
    for _ in range(2):  # as the system, light, dark
        theme = me.page.evaluate("document.documentElement.dataset.theme")
        me.page.get_by_role("button", name="Theme").click()
        me.page.wait_for_function(
            "was => document.documentElement.dataset.theme !== was", arg=theme
        )
        me.settle()
    assert me.page.evaluate(dark)
    assert me.go("/models").page.evaluate(dark)


def test_the_keyboard_goes_everywhere(me: Visitor) -> None:
    me.page.keyboard.press("Tab")
    assert me.page.evaluate("document.activeElement.className") == "skip"
    for page in find_pages():
        me.page.evaluate("document.activeElement.blur()")
        me.page.keyboard.press("g")
        me.page.keyboard.press(page.key)
        me.page.wait_for_url(me.server.url + page.path)
        me.settle()
    me.page.evaluate("document.activeElement.blur()")
    me.page.keyboard.press("?")
    me.page.get_by_role("dialog").wait_for()
    me.page.keyboard.press("Escape")
    me.page.get_by_role("dialog").wait_for(state="detached")


def test_a_phone_reaches_every_page(visitor: Callable[..., Visitor]) -> None:
    me = visitor(PHONE).log_in()
    me.page.get_by_role("button", name="More").click()
    me.page.locator(".q-menu").get_by_text("Settings").click()
    me.page.get_by_role("heading", name="Settings").wait_for()


def test_a_user_sees_what_a_user_may(visitor: Callable[..., Visitor], me: Visitor) -> None:
    me.server.cli("key", "add", "ann", "--tenant", "shop", "--json")
    with me.server.client() as client:
        made = client.post("/os/v1/keys", json={"name": "bea", "tenant": "shop"}).json()
    bea = visitor().log_in(made["secret"])
    for path in ("/overview", "/settings"):
        bea.go(path).page.get_by_text("Your key may not see this.").wait_for()
    bea.go("/processes").page.get_by_role("table").wait_for()
    bea.go("/models").page.get_by_text("pilot:1").wait_for()
