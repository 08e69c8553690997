"""The server's log: its end, its levels, and on through a rotation."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import httpx
import pytest

from llmos.telemetry import logtail
from tests.unit.cli.conftest import Run
from tests.unit.sdk.fake import Pieces, Server, refusal, sse


def line(number: int, level: str = "info", **extra: object) -> str:
    entry = {"time": f"t{number}", "level": level, "logger": "llmos.x", "message": f"m{number}"}
    return json.dumps(entry | extra) + "\n"


@pytest.fixture
def log(home: Path) -> Path:
    path = home / "logs" / "llmos.log"
    path.parent.mkdir()
    path.write_text("".join(line(i, "warning" if i == 8 else "info") for i in range(10)))
    return path


def test_its_last_lines(llmos: Run, log: Path) -> None:
    shown = llmos("logs", "-n", "3")
    assert shown.code == 0
    assert [text.split()[-1] for text in shown.out.splitlines()] == ["m7", "m8", "m9"]


def test_by_severity_and_as_json(llmos: Run, log: Path) -> None:
    assert [entry["message"] for entry in llmos("logs", "--level", "warning", "--json").lines] == [
        "m8"
    ]


def test_extras_and_exceptions_are_shown_and_harmless(llmos: Run, log: Path) -> None:
    log.write_text(line(1, request_id="req_1", exception="Traceback\nValueError: x\x1b[2J"))
    shown = llmos("logs").out
    assert "request_id=req_1" in shown
    assert "    ValueError: x\\x1b[2J" in shown


def test_what_is_no_json_is_shown_as_it_is(llmos: Run, log: Path) -> None:
    log.write_text("plain words\n[1, 2]\n")
    assert [text.split(":", 1)[1].strip() for text in llmos("logs").out.splitlines()] == [
        "plain words",
        "[1, 2]",
    ]


def test_no_log_is_said(llmos: Run, home: Path) -> None:
    refused = llmos("logs", "--json")
    assert refused.code == 1
    assert refused.error["code"] == "not_found"
    assert "no server has run" in refused.error["message"]


def test_a_server_elsewhere_is_asked_for_its_log(
    llmos: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOS_URL", "http://server.test")
    told = [json.loads(line(1)), json.loads(line(2, "error"))]
    server.routes["GET /os/v1/logs"] = httpx.Response(200, json={"entries": told})
    shown = llmos("logs", "-n", "7", "--level", "warning")
    assert [text.split()[-1] for text in shown.out.splitlines()] == ["m2"]
    assert server.requests[-1].url.params["lines"] == "7"
    server.routes["GET /os/v1/logs"] = lambda _: httpx.Response(200, stream=Pieces(sse(*told)))
    shown = llmos("logs", "--follow")
    assert [text.split()[-1] for text in shown.out.splitlines()] == ["m1", "m2"]
    assert "stopped" in shown.err
    assert server.requests[-1].url.params["follow"] == "true"
    server.routes["GET /os/v1/logs"] = refusal(403, "permission_denied")
    assert llmos("logs", "--json").error["code"] == "permission_denied"


@pytest.mark.parametrize("num_lines", ["1001", "5000"])
def test_more_than_a_server_gives_is_refused_wherever_it_is(
    llmos: Run, log: Path, num_lines: str
) -> None:
    refused = llmos("logs", "-n", num_lines)
    assert refused.code == 2
    assert "1000" in refused.err
    assert llmos("logs", "-n", "1000").code == 0


def test_following_goes_on_through_a_rotation_and_waits_for_whole_lines(log: Path) -> None:
    def rotate() -> None:
        with log.open("a") as file:
            file.write(line(11))  # written before it was turned over: not lost
        log.rename(log.with_name("llmos.log.1"))
        log.write_text(line(12))

    def append(text: str) -> None:
        with log.open("a") as file:
            file.write(text)

    whole = line(10)
    acts = iter(
        [
            lambda: append(whole[:9]),
            lambda: append(whole[9:]),
            rotate,
            lambda: append(line(13)),
        ]
    )

    def pause() -> None:
        next(acts)()

    found = logtail.entries(log, 1, follow=True, pause=pause)
    taken = [entry["message"] for entry in itertools.islice(found, 5)]
    assert taken == ["m9", "m10", "m11", "m12", "m13"]


def test_of_a_huge_log_only_the_end_is_read(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logtail, "TAIL_BYTES", 3 * len(line(1)) + 5)
    found = [
        entry["message"] for entry in logtail.entries(log, 100, follow=False, pause=lambda: None)
    ]
    assert found == ["m7", "m8", "m9"]
