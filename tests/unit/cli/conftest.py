"""A command line in this process, talking to a table of answers instead of a server."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.cli.main import main
from llmos.sdk import client as sdk_client
from llmos.sdk.transport import Transport
from tests.unit.sdk.fake import Server


@dataclasses.dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


class Stdin(io.TextIOWrapper):
    """Text, or bytes, on stdin; `is_tty` claims a person sits there."""

    def __init__(self, data: str | bytes, is_tty: bool = False) -> None:
        super().__init__(io.BytesIO(data.encode() if isinstance(data, str) else data), "utf-8")
        self._is_tty = is_tty

    def isatty(self) -> bool:
        return self._is_tty


Run = Callable[..., Outcome]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMOS_HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "dumb")
    (tmp_path / "token").write_text("secret")
    return tmp_path


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Answers whatever client the commands make. Add to its `routes`."""
    fake = Server({"GET /healthz": httpx.Response(200, json={"ok": True})})

    def make(endpoint: Any, config: Any, _: object = None) -> Transport:
        return Transport(endpoint, config, httpx.MockTransport(fake.handle))

    monkeypatch.setattr(sdk_client, "Transport", make)
    return fake


@pytest.fixture
def llmos(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line."""

    def run(*args: str, stdin: str | bytes = "", is_tty: bool = False) -> Outcome:
        monkeypatch.setattr("sys.stdin", Stdin(stdin, is_tty))
        code = main(list(args))
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run
