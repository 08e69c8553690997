"""The site of the documents in a browser: it asks no other host, and its search finds."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.browser.conftest import DESK, WAIT_MS
from tools import docsite


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    docsite.build(folder)
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def visit(browser: Any, site: str) -> Iterator[Any]:
    """A page; any error in its console and any request to another host fails the test."""
    context = browser.new_context(viewport={"width": DESK[0], "height": DESK[1]})
    problems: list[str] = []
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("request", lambda r: r.url.startswith(site) or problems.append(r.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: m.type == "error" and problems.append(m.text))
    yield page
    context.close()
    assert problems == []


@pytest.mark.parametrize("name", ["index", "tutorial", "benchmarks", "cli", "zh/tutorial"])
def test_a_page_asks_nobody(visit: Any, site: str, name: str) -> None:
    visit.goto(f"{site}/{name}.html", wait_until="networkidle")
    assert visit.locator("h1").count() == 1


@pytest.mark.parametrize(
    ("start", "asked", "found"),
    [("index", "suspend", "memory.html"), ("zh/index", "服务器", "zh/tutorial.html")],
)
def test_the_search_finds(visit: Any, site: str, start: str, asked: str, found: str) -> None:
    visit.goto(f"{site}/{start}.html")
    visit.locator(".md-search__input").click()
    visit.keyboard.insert_text(asked)
    visit.keyboard.press("End")
    visit.locator(f'.md-search-result__link[href*="{found}"]').first.wait_for()


def test_the_other_language_is_one_click_away(visit: Any, site: str) -> None:
    visit.goto(f"{site}/tutorial.html")
    visit.locator(".md-select button").first.hover()
    visit.locator('a[hreflang="zh"]').click()
    visit.wait_for_url("**/zh/tutorial.html")
    assert visit.locator("h1").inner_text().startswith("十分钟学会 LLMOS")
