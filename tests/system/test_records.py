"""Every inference leaves one row behind, whatever became of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.system.server import Server
from tests.system.test_faults import echo


def _rows(home: Path) -> list[sqlite3.Row]:
    raw = sqlite3.connect(home / "db" / "llmos.db")
    raw.row_factory = sqlite3.Row
    try:
        return raw.execute("SELECT * FROM requests ORDER BY created_ns").fetchall()
    finally:
        raw.close()


def test_what_is_recorded_of_inferences(own_server: Server) -> None:
    server = own_server
    server.options = ("--preload", "echo")
    server.start()
    with server.client() as client:
        body = client.post("/v1/chat/completions", json=echo(stream=False)).json()
        with client.stream(
            "POST", "/v1/chat/completions", json=echo(delay_ms=50, tokens=1000)
        ) as s:
            next(s.iter_lines())  # and leave in the middle
    assert server.stop() == 0
    whole, left = _rows(server.home)
    assert whole["request_id"].removeprefix("req_") == body["id"].split("-")[-1].split("_")[-1]
    assert (whole["model"], whole["route"], whole["tenant_id"]) == ("echo:1", "chat", "default")
    assert whole["outcome"] == body["choices"][0]["finish_reason"]
    for name in ("prompt_tokens", "completion_tokens"):
        assert whole[name] == body["usage"][name] > 0
    times = [whole[f"{name}_ns"] for name in ("created", "started", "first_token", "ended")]
    assert times == sorted(times)
    assert (left["outcome"], left["error_code"]) == ("cancelled", None)
    assert 0 < left["completion_tokens"] < 1000
