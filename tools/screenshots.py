"""Take the console's pictures again: `python tools/screenshots.py [NAME ...]`.

A server of its own in a home that tells nothing of this machine, with a classifier measured in it,
and Debian's Chromium. Needs the extra `dev` and `apt-get install chromium`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # it is run as a file

from llmos.sdk import Client  # noqa: E402
from tests.system.server import Server  # noqa: E402

HOME = Path(tempfile.gettempdir()) / "llmos-demo"
FOLDER = ROOT / "docs" / "screenshots"
SIZE = {"width": 1280, "height": 800}
REVIEWS = {
    "positive": [
        "a wonderful film",
        "I loved every minute",
        "not bad at all",
        "better than feared",
    ],
    "negative": ["a terrible bore", "I hated it", "good actors wasted", "I hoped for more"],
}


def settings(page: Any, url: str) -> None:
    """What was set, and from where."""
    page.goto(url + "/settings")
    page.get_by_role("row").nth(5).wait_for()


def evaluate(page: Any, url: str) -> None:
    """An evaluation in full."""
    page.goto(url + "/evaluate")
    page.wait_for_function("window.did_handshake === true")
    page.get_by_role("row").filter(has_text="reviews").get_by_role("button").click()
    page.locator("table.matrix").scroll_into_view_if_needed()


def chat(page: Any, url: str) -> None:
    """Two models side by side."""
    page.goto(url + "/")
    page.wait_for_function("window.did_handshake === true")
    page.get_by_role("button", name="Compare two models").click()
    page.get_by_role("textbox", name="Message").fill("What is LLMOS?")
    page.keyboard.press("Enter")
    for place in range(2):
        page.get_by_role("button", name="Good answer").nth(place).wait_for()


SHOTS: dict[str, Callable[[Any, str], None]] = {
    "settings": settings,
    "evaluate": evaluate,
    "chat": chat,
}


def measure(server: Server) -> None:
    """Something to look at."""
    path = HOME.with_name("llmos-demo.csv")
    rows = [
        f"{text} {number},{label}"
        for number in range(5)
        for label, texts in REVIEWS.items()
        for text in texts
    ]
    path.write_text("\n".join(["text,label", *rows]), "utf-8")
    asked = {"kind": "classify", "model": "sentiment", "resamples": 200, "title": "reviews"}
    with Client(server.url, server.token) as client:
        job = client.evaluations.start(asked, path)
        client.jobs.wait(job.job.job_id, progress=True)
    path.unlink()


def main(names: list[str]) -> int:
    """0 when all that were named are taken; without a name, all."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or set(names) - set(SHOTS):
        print(f"usage: screenshots.py [{' '.join(SHOTS)}], with chromium", file=sys.stderr)
        return 2
    shutil.rmtree(HOME, ignore_errors=True)
    server = Server(HOME, "--preload", "echo", "--preload", "pilot").start()
    try:
        measure(server)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport=SIZE)
            page.goto(f"{server.url}/login#key={server.token}")
            page.click("button[type=submit]")
            page.wait_for_function("window.did_handshake === true")
            for name in names or SHOTS:
                SHOTS[name](page, server.url)
                page.wait_for_timeout(500)  # what moves has come to rest
                page.screenshot(path=FOLDER / f"{name}.png")
                print(FOLDER / f"{name}.png")
            browser.close()
    finally:
        server.stop()
        shutil.rmtree(HOME, ignore_errors=True)
        server.log_path.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
