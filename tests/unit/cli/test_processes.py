"""`ps nice kill wait logs why`: whom they mean, what they ask, how they end."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import pytest

from llmos.abi.syscall import Decided
from llmos.cli.story import fresh
from tests.unit.cli.conftest import Run
from tests.unit.sdk.fake import PROCESS, STORY, Server, refusal

CREATED_NS = PROCESS["created_ns"]
FIRST = "req_0193aaaaaaaaaaaaaaaaaaaaaaaa00000001"
OTHER = "req_0193aaaaaaaaaaaaaaaaaaaaaaaa00000002"
ENDED: dict[str, Any] = {
    "info": {
        **PROCESS,
        "process_id": FIRST,
        "state": "finished",
        "reason": "stop; ran 1.50 s in 2 slices, predicted 1.20 s; 5 tokens, predicted 8",
        "started_ns": CREATED_NS + 500_000_000,
        "ended_ns": CREATED_NS + 2_000_000_000,
    },
    "decisions": [
        *STORY["decisions"],
        {"at_ns": CREATED_NS + 2_000_000_000, "state": "finished", "reason": "stop"},
    ],
}


def ok(value: Any) -> httpx.Response:
    return httpx.Response(200, json=value)


@pytest.fixture
def two(server: Server) -> Server:
    """A server with two live processes."""
    both = [{**PROCESS, "process_id": name} for name in (FIRST, OTHER)]
    server.routes["GET /os/v1/processes"] = lambda _: ok({"processes": both})
    return server


def test_ps_hands_its_filters_to_the_server(llmos: Run, server: Server) -> None:
    server.routes["GET /os/v1/processes"] = lambda _: ok({"processes": []})
    done = llmos("ps", "--state", "waiting", "--state", "paused", "--model", "p", "--mine")
    assert (done.code, done.out) == (0, "")
    assert dict(server.requests[-1].url.params) == {
        "state": "waiting,paused",
        "model": "p",
        "mine": "true",
    }
    llmos("ps", "--all", "--tenant", "ten_1")
    assert dict(server.requests[-1].url.params) == {"tenant": "ten_1"}
    assert "--all" in llmos("ps").err


def test_ps_shows_when_a_row_is_expected(llmos: Run, server: Server) -> None:
    waiting = {**PROCESS, "state": "waiting", "eta_s": 2.04, "nice": -3}
    server.routes["GET /os/v1/processes"] = lambda _: ok({"processes": [waiting]})
    header, row = llmos("ps").out.splitlines()
    assert "ETA" in header
    assert "2.0 s" in row
    assert "-3" in row


@pytest.mark.parametrize("given", ["00000001", "…00000001", "a00000001", FIRST])
def test_a_process_is_meant_by_a_part_of_its_id(llmos: Run, two: Server, given: str) -> None:
    two.routes[f"GET /os/v1/processes/{FIRST}"] = ok(ENDED)
    assert llmos("why", given).code == 0


@pytest.mark.parametrize("given", ["req_0193", "0193", "aaaa"])
def test_what_could_be_several_names_them(llmos: Run, two: Server, given: str) -> None:
    done = llmos("kill", "00000001", given)
    assert done.code == 1
    if given == "aaaa":  # neither the beginning nor the end
        assert "no live process" in done.err
    else:
        assert FIRST in done.err
        assert OTHER in done.err
    assert all(request.method == "GET" for request in two.requests)


def test_an_empty_id_means_nobody(llmos: Run, two: Server) -> None:
    assert llmos("kill", "").code == 1
    assert llmos("why", "…").code == 1
    assert two.requests == []


def test_kill_ends_each_once(llmos: Run, two: Server) -> None:
    for name in (FIRST, OTHER):
        two.routes[f"DELETE /os/v1/processes/{name}"] = ok({"done": f"{name} is being ended"})
    assert llmos("kill", "1", "2", FIRST).out == f"killed {FIRST}\nkilled {OTHER}\n"
    assert sum(request.method == "DELETE" for request in two.requests) == 2
    assert llmos("kill", "1", "--json").json["process_id"] == FIRST
    two.routes[f"DELETE /os/v1/processes/{FIRST}"] = refusal(404, "not_found")
    assert llmos("kill", "1").code == 1


@pytest.mark.parametrize(
    ("args", "body"),
    [
        (("5",), {"nice": 5}),
        (("-5",), {"nice": -5}),
        (("--class", "batch"), {"class": "batch"}),
        (("0", "--class", "interactive"), {"nice": 0, "class": "interactive"}),
    ],
)
def test_nice(llmos: Run, two: Server, args: tuple[str, ...], body: dict[str, Any]) -> None:
    two.routes[f"POST /os/v1/processes/{FIRST}/nice"] = ok({"done": "set"})
    assert llmos("nice", "00000001", *args).out == "set\n"
    assert two.body() == body
    assert two.requests[0].url.query == b"state=live"


@pytest.mark.parametrize("args", [(), ("many",), ("--class", "king"), ("1", "2"), ("--clas", "x")])
def test_nice_wants_a_number_or_a_class(llmos: Run, two: Server, args: tuple[str, ...]) -> None:
    assert llmos("nice", "00000001", *args).code == 2
    assert two.requests == []


@pytest.mark.parametrize(
    ("state", "code"), [("finished", 0), ("failed", 1), ("aborted", 1), ("running", 124)]
)
def test_wait_says_by_its_exit_code_how_it_ended(
    llmos: Run, two: Server, state: str, code: int
) -> None:
    ended_ns = None if state == "running" else 5
    story = {**ENDED, "info": {**ENDED["info"], "state": state, "ended_ns": ended_ns}}
    two.routes[f"GET /os/v1/processes/{FIRST}/wait"] = lambda _: ok(story)
    done = llmos("wait", "00000001", "--timeout", "0")
    assert done.code == code
    assert state in done.out
    as_json = llmos("wait", FIRST, "--timeout", "0", "--json")
    assert (as_json.code, as_json.json["info"]["state"]) == (code, state)


def test_wait_without_a_timeout_asks_again_until_the_end(llmos: Run, two: Server) -> None:
    stories = iter([{**STORY, "info": {**PROCESS, "process_id": FIRST}}, ENDED])
    two.routes[f"GET /os/v1/processes/{FIRST}/wait"] = lambda _: ok(next(stories))
    assert llmos("wait", FIRST).code == 0
    assert [dict(r.url.params) for r in two.requests] == [{"timeout_s": "30"}] * 2


def test_wait_does_not_take_a_negative_timeout(llmos: Run, two: Server) -> None:
    assert llmos("wait", FIRST, "--timeout", "-1").code == 2


def test_why_is_a_timeline(llmos: Run, two: Server) -> None:
    two.routes[f"GET /os/v1/processes/{FIRST}"] = ok(ENDED)
    out = llmos("why", "00000001").out.splitlines()
    assert out[0].startswith(f"{FIRST}  request  finished")
    assert "class interactive, nice 0" in out[1]
    assert out[3].split() == ["+0.000", "s", "waiting", *STORY["decisions"][0]["reason"].split()]
    assert out[4].split()[:3] == ["+0.500", "s", "running"]
    assert out[-1] == "waited 0.500 s for a row, then took 1.500 s"
    made = llmos("why", "00000001", "--json").json
    assert made["decisions"][1]["after_s"] == 0.5
    assert made["info"] == ENDED["info"]


def test_why_says_how_much_of_the_prompt_was_cached(llmos: Run, two: Server) -> None:
    info = {**ENDED["info"], "prompt_tokens": 1000, "cached_tokens": 960}
    two.routes[f"GET /os/v1/processes/{FIRST}"] = ok({**ENDED, "info": info})
    line = llmos("why", FIRST).out.splitlines()[2]
    assert line.startswith("1000 tokens of prompt (960 of them cached), ")


def test_why_of_one_that_never_ran(llmos: Run, two: Server) -> None:
    reason = "queue_full: 9 requests wait\x1b[2J\n; never accepted"
    info = {**ENDED["info"], "state": "failed", "started_ns": None}
    story = {
        "info": info,
        "decisions": [{"at_ns": CREATED_NS, "state": "failed", "reason": reason}],
    }
    two.routes[f"GET /os/v1/processes/{FIRST}"] = ok(story)
    out = llmos("why", FIRST).out
    assert "never had a row" in out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 5


def test_logs_are_lines_and_follow_to_the_end(llmos: Run, two: Server) -> None:
    two.routes[f"GET /os/v1/processes/{FIRST}"] = ok(STORY)
    two.routes[f"GET /os/v1/processes/{FIRST}/wait"] = lambda _: ok(ENDED)
    printed = llmos("logs", FIRST).out.splitlines()
    assert printed[0].startswith(f"2023-11-14T22:13:20.000Z  {FIRST}  waiting     accepted")
    assert len(printed) == 2
    followed = llmos("logs", FIRST, "-f").out.splitlines()
    assert followed[:2] == printed
    assert followed[2].endswith("finished    stop")
    lines = [json.loads(x) for x in llmos("logs", FIRST, "-f", "--json").out.splitlines()]
    assert [line["state"] for line in lines] == ["waiting", "running", "finished"]


class Pipe(io.TextIOWrapper):
    """Buffers as a pipe's writer does; `arrived` is what a reader has got so far."""

    def __init__(self) -> None:
        self._raw = io.BytesIO()
        super().__init__(io.BufferedWriter(self._raw), "utf-8")  # type: ignore[type-var]

    @property
    def arrived(self) -> str:
        return self._raw.getvalue().decode()


@pytest.mark.parametrize("options", [("-f",), ("-f", "--json")])
def test_a_line_that_is_followed_through_a_pipe_comes_at_once(
    llmos: Run, two: Server, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    pipe, arrived = Pipe(), []

    def end(_: httpx.Request) -> httpx.Response:
        arrived.append(pipe.arrived)
        return ok(ENDED)

    two.routes[f"GET /os/v1/processes/{FIRST}"] = ok(STORY)
    two.routes[f"GET /os/v1/processes/{FIRST}/wait"] = end
    monkeypatch.setattr("sys.stdout", pipe)
    assert llmos("logs", FIRST, *options).code == 0
    assert [text.count("\n") for text in arrived] == [2]


def test_a_followed_story_that_lost_its_middle_repeats_nothing() -> None:
    story = [Decided(i, "waiting", str(i)) for i in range(10)]
    assert fresh(story, None) == story
    assert fresh(story, story[6]) == story[7:]
    assert fresh(story[:3] + story[8:], story[6]) == story[8:]
    assert fresh(story, story[-1]) == []
