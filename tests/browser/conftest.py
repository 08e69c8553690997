"""A real server, a real Chromium, and a page that forgives nothing: any error in the browser's
console and any request to another host fails the test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.system.server import Server

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
DESK, PHONE = (1280, 800), (375, 740)
WAIT_MS = 10_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium. Absent, every test here is skipped and listed, or fails under CI.

    One for each file: while Playwright is open its event loop is this thread's, and no test of
    another suite could run one.
    """
    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if path is None:
        missing("no chromium on this machine: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no playwright: pip install 'llmos[dev]'")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server per file, with the pilot and the test driver loaded."""
    home = tmp_path_factory.mktemp("console") / "home"
    loaded = ("--preload", "echo", "--preload", "pilot")
    running = Server(home, *loaded, "--set", "kernel.max_context_tokens=100000").start()
    try:
        yield running
        if running.is_started:
            assert running.stop() == 0, running.log
    finally:
        running.kill()


class Visitor:
    """A browser's page at one server; `problems` is what must be empty in the end."""

    def __init__(self, browser: Any, server: Server, size: tuple[int, int], **options: Any) -> None:
        self.server = server
        viewport = {"width": size[0], "height": size[1]}
        self.context = browser.new_context(viewport=viewport, **options)
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", self._watch)

    def _hear(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.problems.append(f"{message.type}: {message.text}")

    def _watch(self, request: Any) -> None:
        if not request.url.startswith((self.server.url, "data:", "blob:")):
            self.problems.append(f"a request to {request.url}")

    def log_in(self, key: str | None = None) -> Visitor:
        """By the link that the server prints."""
        self.page.goto(f"{self.server.url}/login#key={key or self.server.token}")
        self.page.click("button[type=submit]")
        self.settle()
        return self

    def go(self, path: str) -> Visitor:
        self.page.goto(self.server.url + path)
        self.settle()
        return self

    def settle(self) -> None:
        """Until the page answers to what one does."""
        self.page.wait_for_function("window.did_handshake === true")

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def visitor(browser: Any, server: Server) -> Iterator[Callable[..., Visitor]]:
    """Makes visitors, and looks at the end whether anything went wrong in their browsers."""
    made: list[Visitor] = []

    def visit(size: tuple[int, int] = DESK, **options: Any) -> Visitor:
        made.append(Visitor(browser, server, size, **options))
        return made[-1]

    yield visit
    for one in made:
        one.close()
    assert [problem for one in made for problem in one.problems] == []


@pytest.fixture
def me(visitor: Callable[..., Visitor]) -> Visitor:
    """The administrator, at a desk."""
    return visitor().log_in()


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's source, out of the package that carries it."""
    try:
        import axe_playwright_python
    except ImportError:
        missing("no axe-core: pip install 'llmos[dev]'")
    folder = Path(axe_playwright_python.__file__).parent
    return (folder / "axe.min.js").read_text("utf-8")
