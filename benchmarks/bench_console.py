"""What a page of the console costs: until it answers, and the server while it is looked at.

Every page is opened in a headless Chromium, with its files in the browser's cache as they are from
the second visit on, and then looked at for some seconds. The server is at rest but for the page, so
what it and its workers take of a core meanwhile is the page's, less what they take while the
browser shows a blank one; the two are measured by turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from benchmarks import harness
from benchmarks.bench_newcomer import opened
from benchmarks.serving import HOST, Server, serving
from llmos.cluster.proc import tree_cpu_s
from llmos.console.found import find_pages

BLANK = "about:blank"
SETTLE_S = 2.0
"""Between opening a page and counting: what opening it costs is the other figure."""


def log_in(browser: Any, server: Server) -> Any:
    """By the link that the server prints; the page that is there then."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.goto(f"http://{HOST}:{server.port}/login#key={server.token}")
    page.click("button[type=submit]")
    page.wait_for_function("window.did_handshake === true")
    return page


def interactive_s(page: Any, server: Server, path: str) -> float:
    """Until the page answers to what one does."""
    began = time.monotonic()
    page.goto(f"http://{HOST}:{server.port}{path}")
    page.wait_for_function("window.did_handshake === true")
    return time.monotonic() - began


def core_percent(server: Server, seconds: float) -> float:
    """Of one core, what the server and its workers take."""
    time.sleep(SETTLE_S)
    before_s, began = tree_cpu_s(server.process.pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (tree_cpu_s(server.process.pid) - before_s) / (time.monotonic() - began)


def measure(result: harness.Result, server: Server, page: Any, times: int, seconds: float) -> None:
    paths = {each.name: each.path for each in find_pages()}
    for path in paths.values():
        interactive_s(page, server, path)
    soon: dict[str, list[float]] = {name: [] for name in paths}
    taken: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(times):
        for name, path in paths.items():
            page.goto(BLANK)
            at_rest = core_percent(server, seconds)
            soon[name].append(interactive_s(page, server, path))
            taken[name].append(core_percent(server, seconds) - at_rest)
    for name in paths:
        result.add(harness.single(f"{name}: interactive", "s", soon[name]))
    for name in paths:
        result.add(
            harness.single(f"{name}: of the server, while it is open", "% of a core", taken[name])
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="that each page is looked at")
    arguments = parser.parse_args()
    result = harness.Result("console", harness.command("console"))
    with opened() as browser, serving("--preload", "echo", "--preload", "pilot") as (server, _):
        page = log_in(browser, server)
        measure(result, server, page, arguments.repetitions, arguments.seconds)
    print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
