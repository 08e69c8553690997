"""The server goes away while a page is open, and comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.browser.conftest import DESK, Visitor
from tests.system.server import Server


@pytest.mark.slow
def test_a_page_says_so_and_reconnects(browser: Any, tmp_path: Any) -> None:
    own = Server(tmp_path / "home", "--preload", "echo").start()
    try:
        who = Visitor(browser, own, DESK).log_in()
        who.go("/overview").page.get_by_text("Nothing needs attention.").wait_for()
        assert own.stop() == 0
        who.page.get_by_text("The server does not answer.").wait_for()
        port = json.loads(json.dumps(own.url)).rpartition(":")[2]
        own.options = (*own.options, "--port", port)
        own.start()
        who.page.get_by_text("The server does not answer.").wait_for(state="hidden")
        who.page.get_by_text("Nothing needs attention.").wait_for()
        who.close()
    finally:
        own.kill()
