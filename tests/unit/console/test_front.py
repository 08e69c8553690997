"""Who answers what: pages for browsers, the API for all else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmos.api.app import SEGMENTS
from llmos.console import front
from llmos.console.config import ConsoleConfig
from llmos.console.downloads import is_download
from llmos.console.front import Front, require_toolkit
from llmos.errors import PluginError

HTML = "text/html,*/*"


async def _api(scope: Any, receive: Any, send: Any) -> None:
    await front.reply(send, 404, b"api", b"application/json")


def _ask(made: Front, path: str, accept: str = "*/*") -> tuple[int, str, bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"accept", accept.encode())]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b""}
    asyncio.run(made(scope, None, send))  # type: ignore[arg-type]
    return sent[0]["status"], dict(sent[0]["headers"])[b"content-type"].decode(), sent[1]["body"]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Front:
    """Where the toolkit is not installed."""
    monkeypatch.setattr(front, "TOOLKIT", "no_such_toolkit")
    return Front(_api, SEGMENTS, ConsoleConfig(), 1024)


def test_without_the_toolkit_the_first_page_says_how_to_have_it(bare: Front) -> None:
    status, kind, body = _ask(bare, "/", HTML)
    assert (status, kind.split(";")[0]) == (200, "text/html")
    assert b"pip install 'llmos[console]'" in body
    status, kind, body = _ask(bare, "/")
    assert kind.split(";")[0] == "text/plain"
    assert b"pip install 'llmos[console]'" in body
    assert _ask(bare, "/models", HTML)[2] == b"api"
    with pytest.raises(PluginError, match=r"llmos\[console\]"):
        require_toolkit()


def test_a_console_that_is_off_is_not_there() -> None:
    made = Front(_api, SEGMENTS, ConsoleConfig(enabled=False), 1024)
    assert _ask(made, "/", HTML)[2] == b"api"


@pytest.mark.parametrize(
    ("path", "accept", "pages"),
    [
        ("/", "*/*", True),
        ("/login", "*/*", True),
        ("/_nicegui/x.js", "*/*", True),
        ("/models", HTML, True),
        ("/models", "application/json", False),
        ("/v1/models", HTML, False),
        ("/os/v1/status", HTML, False),
        ("/healthz", HTML, False),
        ("/openapi.json", HTML, False),
        ("/nonsense", "*/*", False),
        ("*", HTML, True),
    ],
)
def test_who_answers(path: str, accept: str, pages: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Site:
        def __init__(self, *_: Any) -> None:
            self.is_open = False

        async def open(self) -> None:
            self.is_open = True

        async def close(self) -> None:
            self.is_open = False

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            assert self.is_open
            await front.reply(send, 200, b"page", b"text/html")

    monkeypatch.setattr(front, "TOOLKIT", "json")
    monkeypatch.setattr(front, "SITE", f"{__name__}:Site")
    monkeypatch.setitem(globals(), "Site", Site)
    assert _ask(Front(_api, SEGMENTS, ConsoleConfig(), 1024), path, accept)[2] == (
        b"page" if pages else b"api"
    )


@pytest.mark.parametrize(
    ("path", "method", "yes"),
    [
        ("/console/get/os/v1/tasks/job_1/result", "GET", True),
        ("/console/get/v1/files/file-1/content", "GET", True),
        ("/console/get/v1/files/file-1/content", "DELETE", False),
        ("/console/get/os/v1/keys", "GET", False),
        ("/console/get/os/v1/tasks/../keys/result", "GET", False),
        ("/os/v1/tasks/job_1/result", "GET", False),
    ],
)
def test_only_files_are_fetched_with_the_session(path: str, method: str, yes: bool) -> None:
    assert is_download({"path": path, "method": method}) is yes
