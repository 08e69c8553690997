"""The server under test and clients of it. `Server` itself lies in `tests/system/server.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.system.server import Server


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """One server per test module, with echo loaded; its log is shown if it does not end well."""
    running = Server(tmp_path_factory.mktemp("server") / "home", "--preload", "echo").start()
    failed_before = request.session.testsfailed
    try:
        yield running
        if request.session.testsfailed > failed_before:
            print(f"server log:\n{running.log[-8000:]}")
        if running.is_started:
            assert running.stop() == 0, running.log
    finally:
        running.kill()


@pytest.fixture
def own_server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of this test alone, not started: for tests that kill, fill or restart it."""
    yield from _shown_if_failed(Server(tmp_path / "home"), request)


@pytest.fixture
def spared_server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """As `own_server`, with a warm spare after each load, as is shipped; but at once."""
    options = ("--set", "kernel.spare_delay_s=0")
    yield from _shown_if_failed(Server(tmp_path / "home", *options, spares=True), request)


def _shown_if_failed(own: Server, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server, killed in the end, and its log where a test failed."""
    failed_before = request.session.testsfailed
    try:
        yield own
    finally:
        own.kill()
        if request.session.testsfailed > failed_before:
            print(f"server log:\n{own.log[-8000:]}")


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """An administrator's httpx client of the module's server."""
    with server.client() as made:
        yield made


@pytest.fixture
def openai_client(server: Server) -> Iterator[openai.OpenAI]:
    """The official OpenAI client of the module's server."""
    with server.openai() as made:
        yield made


@pytest.fixture(scope="module")
def golden(test_data: Path) -> dict[str, Any]:
    """What is known of stories260k."""
    text = (test_data / "models" / "stories260k" / "golden.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture
def http(serving: Server) -> Iterator[httpx.Client]:
    """An httpx client of a module's `serving`, which has models pulled; with patience for them."""
    with serving.client(timeout=90.0) as made:
        yield made


@pytest.fixture
def api(serving: Server) -> Iterator[openai.OpenAI]:
    """As `http`, the official OpenAI client."""
    with serving.openai(timeout=90.0) as made:
        yield made
