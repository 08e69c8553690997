"""A first-time user's path, timed: from `git clone` to the first token seen in the console.

One run is what a person does who has Python, git and make, and nothing of ours: clone, `make run`,
open the link that the server prints, log in, ask. Everything is in a new folder and a new home; a
headless Chromium is the eyes. What a person takes to read and to click is not in it. `set-up` is
what `make run` does before the server starts: a virtual environment and its packages, so it is
mostly the network's; pip's cache is used as it is found unless `--no-cache` is given, and the
result says which it was.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks import harness

QUESTION = "What is LLMOS?"
STEPS = (
    "clone",
    "set-up by `make run`",
    "server ready",
    "page interactive after the log-in",
    "first token in the page",
)
WHOLE = "clone to first token, without the person"
POLL_S = 0.02
SETUP_LIMIT_S, READY_LIMIT_S, PAGE_LIMIT_MS = 1800.0, 120.0, 60_000
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
LINK = re.compile(r"https?://\S+/login#key=\S+")


class NotInTime(Exception):
    """A step took too long, or ended otherwise."""


def until(what: str, found: Callable[[], Any], limit_s: float, alive: Callable[[], bool]) -> Any:
    """The first truth of `found`. Raises NotInTime."""
    deadline = time.monotonic() + limit_s
    while not (value := found()):
        if not alive():
            raise NotInTime(f"{what}: the process ended")
        if time.monotonic() > deadline:
            raise NotInTime(f"{what}: not after {limit_s:g} s")
        time.sleep(POLL_S)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path, *, cached: bool) -> dict[str, str]:
    """A person's own: no virtual environment, no settings of ours, no byte code of before."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LLMOS_", "VIRTUAL_ENV"))}
    kept["XDG_CONFIG_HOME"] = str(folder / "config")
    kept["PATH"] = os.pathsep.join(
        part for part in kept["PATH"].split(os.pathsep) if ".venv" not in part
    )
    return kept if cached else kept | {"PIP_NO_CACHE_DIR": "1"}


@contextlib.contextmanager
def making(command: list[str], cwd: Path, log: Path, env: dict[str, str]) -> Iterator[Any]:
    """`make run` in a group of its own, ended as by Ctrl-C."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url + "/readyz", timeout=2.0).status_code == 200
    except httpx.TransportError:
        return False


def one_run(browser: Any, folder: Path, python: str, *, cached: bool) -> dict[str, float]:
    """Seconds by step."""
    clone, home, log = folder / "llmos", folder / "home", folder / "run.log"
    took: dict[str, float] = {}
    began = time.monotonic()
    clone_command = ["git", "clone", "--quiet", "--no-local", str(harness.ROOT), str(clone)]
    subprocess.run(clone_command, check=True)
    took["clone"] = time.monotonic() - began
    port = free_port()
    command = ["make", "run", f"PORT={port}", f"HOME_DIR={home}", f"PYTHON={python}"]
    env = environment(folder, cached=cached)
    with making(command, clone, log, env) as process:
        try:
            started = time.monotonic()

            def alive() -> bool:
                return process.poll() is None

            stamp = clone / ".venv" / ".run.stamp"
            until("set-up", stamp.exists, SETUP_LIMIT_S, alive)
            took["set-up by `make run`"] = time.monotonic() - started
            started = time.monotonic()
            url = f"http://127.0.0.1:{port}"
            until("the server", lambda: is_ready(url), READY_LIMIT_S, alive)
            took["server ready"] = time.monotonic() - started
            link = until(
                "the link", lambda: LINK.search(log.read_text("utf-8", "replace")), 30.0, alive
            )
            took |= ask(browser, link.group())
        except (NotInTime, AssertionError):
            print(log.read_text("utf-8", "replace")[-3000:], file=sys.stderr)
            raise
    took[WHOLE] = sum(took.values())
    return took


def ask(browser: Any, link: str) -> dict[str, float]:
    """Open the link, log in, ask: until the page answers to what one does, and until the first
    words of the answer stand in it."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PAGE_LIMIT_MS)
    page = context.new_page()
    began = time.monotonic()
    page.goto(link)
    page.click("button[type=submit]")
    page.wait_for_function("window.did_handshake === true")
    field = page.get_by_role("textbox", name="Message")
    field.wait_for()
    interactive_s = time.monotonic() - began
    field.fill(QUESTION)
    began = time.monotonic()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "[...document.querySelectorAll('.answer')].some((e) => e.innerText.trim())"
    )
    first_s = time.monotonic() - began
    context.close()
    return {
        "page interactive after the log-in": interactive_s,
        "first token in the page": first_s,
    }


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if path is None:
        raise SystemExit("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def cache_note(*, cached: bool) -> str:
    """What pip had before."""
    if not cached:
        return "pip without its cache: every package came over the network"
    asked = [sys.executable, "-m", "pip", "cache", "info"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    sizes = re.findall(r"(?:HTTP|wheels) cache size.*?: (.+)|wheels size: (.+)", done.stdout)
    told = ", ".join(next(filter(None, pair)) for pair in sizes) or "unknown"
    return f"pip with its cache as it was: {told}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--no-cache", action="store_true", help="pip fetches everything again")
    parser.add_argument("--python", default=shutil.which("python3") or "python3")
    arguments = parser.parse_args()
    cached = not arguments.no_cache
    result = harness.Result("newcomer", harness.command("newcomer"))
    result.notes.append(cache_note(cached=cached))
    found: dict[str, list[float]] = {}
    with opened() as browser:
        for _ in range(arguments.repetitions):
            with tempfile.TemporaryDirectory(prefix="llmos-newcomer-") as folder:
                run = one_run(browser, Path(folder), arguments.python, cached=cached)
                for step, took_s in run.items():
                    found.setdefault(step, []).append(took_s)
    for step in (*STEPS, WHOLE):
        result.add(harness.single(step, "s", found[step]))
    print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
