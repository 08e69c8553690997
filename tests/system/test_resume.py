"""Broken streams that go on: nothing lost, nothing twice, and an error where that cannot be."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.system.server import Server
from tests.system.test_faults import echo, states, until

NUM_TOKENS = 40


def body(resume_s: float = 30.0, delay_ms: int = 5) -> dict[str, Any]:
    """An echo of numbered words."""
    text = " ".join(f"字{n}🙂" for n in range(NUM_TOKENS))
    wish = echo(text, tokens=NUM_TOKENS * 4, delay_ms=delay_ms)
    wish["llmos"]["resume_s"] = resume_s
    wish["stream_options"] = {"include_usage": True}
    return wish


def read(
    client: httpx.Client, wish: dict[str, Any], last_id: str | None = None, events: int = 1 << 30
) -> tuple[str, str, bool]:
    """(text, the last event's id, whether it came to its end), leaving after so many events."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    text, event_id, num_events = "", last_id or "", 0
    with client.stream("POST", "/v1/chat/completions", json=wish, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("id: "):
                event_id = line.removeprefix("id: ")
            elif line == "data: [DONE]":
                return text, event_id, True
            elif line.startswith("data: "):
                choices = json.loads(line.removeprefix("data: "))["choices"]
                text += choices[0]["delta"].get("content", "") if choices else ""
                num_events += bool(choices)
                if num_events >= events:
                    break
    return text, event_id, False


def test_a_stream_broken_many_times_is_whole_in_the_end(server: Server) -> None:
    with server.client() as client:
        whole, _, _ = read(client, body())
        text, last_id, done = read(client, body(), events=3)
        num_breaks = 0
        while not done:
            num_breaks += 1
            more, last_id, done = read(client, body(), last_id, events=7)
            text += more
        assert text == whole
        assert num_breaks > 3


def test_what_came_while_nobody_read_is_there_and_the_end_can_be_read_twice(
    server: Server,
) -> None:
    with server.client() as client:
        whole, final_id, _ = read(client, body())
        begun, last_id, _ = read(client, body(), events=2)
        until(lambda: not {"running", "waiting"} & set(states(client)))
        for _ in range(2):
            rest, end_id, done = read(client, body(), last_id)
            assert (begun + rest, done) == (whole, True)
        assert end_id.partition(":")[2] == final_id.partition(":")[2]
        assert read(client, body(), end_id) == ("", end_id, True)


@pytest.mark.parametrize("given", ["17", "req_1:2", "req_" + "0" * 32 + ":-1", "\u4e2d"])
def test_an_id_that_is_none_is_refused(server: Server, given: str) -> None:
    with server.client() as client:
        headers = {"Last-Event-ID": given.encode()}
        answer = client.post("/v1/chat/completions", json=body(), headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "Last-Event-ID"


def test_an_offset_that_never_was_and_a_stream_nobody_kept_are_told_apart(server: Server) -> None:
    with server.client() as client:
        _, last_id, _ = read(client, body())
        request_id = last_id.partition(":")[0]
        later = {"Last-Event-ID": f"{request_id}:100000"}
        lost = client.post("/v1/chat/completions", json=body(), headers=later)
        assert (lost.status_code, lost.json()["error"]["code"]) == (410, "offset_lost")
        unknown = {"Last-Event-ID": f"req_{'0' * 32}:1"}
        assert client.post("/v1/chat/completions", json=body(), headers=unknown).status_code == 404


def test_a_stream_to_which_nobody_comes_back_is_ended_in_time(server: Server) -> None:
    with server.client() as client:
        read(client, body(resume_s=0.2, delay_ms=200), events=1)
        until(lambda: not {"running", "waiting"} & set(states(client)))
        (reason,) = {
            p["reason"]
            for p in client.get("/os/v1/processes").json()["processes"]
            if "nobody came back" in p["reason"]
        }
        assert "0.2 s" in reason


def test_without_the_option_a_stream_has_no_ids_and_ends_with_its_reader(server: Server) -> None:
    with server.client() as client:
        _, event_id, done = read(client, echo("x", tokens=5))
        assert (event_id, done) == ("", True)
