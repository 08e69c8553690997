"""The server's log as it is handed out: without secrets, through rotations, until it is over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmos.errors import ShuttingDown
from llmos.telemetry.logtail import RedactedLog
from llmos.telemetry.redact import Redactor

SECRET = "not-to-be-told"


def _line(message: str, **extra: object) -> str:
    return json.dumps({"level": "info", "message": message, **extra}) + "\n"


def test_nothing_secret_leaves_and_nothing_is_lost_in_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "llmos.log"
    path.write_text(_line("first") + _line(f"key {SECRET}", prompt="what somebody asked"))
    over = [False]
    log = RedactedLog(path, Redactor([SECRET]), lambda: over[0]).open()
    assert [entry["message"] for entry in log.last(1)] == ["key [redacted]"]
    assert log.more() == []
    with path.open("a") as file:
        file.write(_line("whole", prompt="hello there"))
        file.write('{"message": "ha')
    assert log.more() == [{"level": "info", "message": "whole", "prompt": "[redacted]"}]
    with path.open("a") as file:
        file.write('lf"}\n')
    path.rename(tmp_path / "llmos.log.1")
    path.write_text(_line("after"))
    assert [entry["message"] for entry in log.more()] == ["half", "after"]
    over[0] = True
    with pytest.raises(ShuttingDown):
        log.more()
    log.close()


def test_no_log_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RedactedLog(tmp_path / "none", Redactor([]), lambda: False).open()
