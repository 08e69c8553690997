"""The server's log as it is handed out: without secrets, through rotations, until it is over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

import pytest

from llmos.errors import ShuttingDown
from llmos.telemetry import logtail
from llmos.telemetry.logtail import LogTail, RedactedLog
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


@pytest.mark.parametrize(
    ("asked", "given"), [(0, 0), (1, 1), (29, 29), (30, 30), (50, 30), (60, 30), (1000, 30)]
)
def test_the_last_lines_are_all_where_the_log_is_short(
    tmp_path: Path, asked: int, given: int
) -> None:
    path = tmp_path / "llmos.log"
    path.write_text("".join(_line(str(number)) for number in range(30)))
    with LogTail(path) as tail:
        told = [entry["message"] for entry in tail.last(asked)]
    assert told == [str(number) for number in range(30 - given, 30)]


def test_what_is_written_while_a_rotation_is_noticed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, old = tmp_path / "llmos.log", tmp_path / "llmos.log.1"
    path.write_text(_line("first"))
    is_replaced = logtail._is_replaced

    def rotated_now(at: Path, file: IO[bytes]) -> bool:
        """The server writes once more and rotates: between our end of file and our look."""
        if not old.exists():
            with path.open("a") as more:
                more.write(_line("late"))
            path.rename(old)
            path.write_text(_line("after"))
        return is_replaced(at, file)

    monkeypatch.setattr(logtail, "_is_replaced", rotated_now)
    with LogTail(path) as tail:
        tail.last(1)
        assert [entry["message"] for entry in tail.more()] == ["late", "after"]


def test_no_log_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RedactedLog(tmp_path / "none", Redactor([]), lambda: False).open()
