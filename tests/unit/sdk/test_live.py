"""Watching: streams and progress, on a terminal, in a pipe and in a notebook's cell."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import types
from typing import Any

import httpx
import pytest

from llmos.abi.registry import PullProgress
from llmos.errors import InvalidRequest, ServerUnreachable, ShuttingDown
from llmos.sdk import live
from llmos.sdk.bar import LineBar, PullBar, make_bar, text_of
from llmos.sdk.notebook import Place, place_of
from llmos.sdk.results import Chunk
from tests.unit.sdk.fake import MODEL, PROCESS, Pieces, Server, sse
from tests.unit.sdk.test_shown import HOSTILE, JOB, REPORT, read

CHUNKS = sse(
    {"choices": [{"index": 0, "delta": {"content": "Hello "}}]},
    {"choices": [{"index": 0, "delta": {"content": HOSTILE}}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}},
    "[DONE]",
)
DONE = {"job": {**JOB, "state": "succeeded", "ended_ns": 1_700_000_002_000_000_000}}
METRICS = [
    {"job_id": "job_1", "number": n, "at_ns": n, "kind": "metric", "value": {"step": n, "loss": 1}}
    for n in range(1, 4)
]
LOG = b"".join(sse(one, event="event") for one in METRICS) + sse(DONE, event="done")
ASKED: tuple[str, list[dict[str, Any]]] = ("pilot", [{"role": "user", "content": "hi"}])


class Handle:
    """IPython's handle of something displayed."""

    def __init__(self, shown: list[dict[str, str]]) -> None:
        self._shown = shown

    def update(self, data: dict[str, str], raw: bool) -> None:
        assert raw
        self._shown.append(data)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """A kernel that keeps what is displayed in it."""
    shown: list[dict[str, str]] = []

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert raw and display_id
        shown.append(data)
        return Handle(shown)

    shell = types.SimpleNamespace(kernel=object())
    ipython: Any = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return shown


def _server() -> Server:
    return Server(
        {
            "POST /v1/chat/completions": lambda _: httpx.Response(200, stream=Pieces(CHUNKS)),
            "GET /os/v1/jobs/job_1/events": lambda _: httpx.Response(200, stream=Pieces(LOG)),
        }
    )


def test_an_answer_is_written_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    with _server().client() as client:
        answer = client.chat(*ASKED, stream=True).show()
    out = capsys.readouterr().out
    assert out.startswith("Hello <script>")
    assert out.endswith("\n")
    assert "\x1b" not in out
    assert answer.num_tokens == 9
    assert answer.text == "Hello " + HOSTILE


def test_a_notebook_draws_an_answer_in_one_cell(notebook: list[dict[str, str]]) -> None:
    with _server().client() as client:
        client.chat(*ASKED, stream=True)._ipython_display_()
    assert len(notebook) >= 2
    last = read(notebook[-1]["text/html"])
    assert "Hello <script>alert(1)</script>" in last.words
    assert "script" not in last.seen
    assert "9 tokens" in last.words


def test_a_log_becomes_a_run(notebook: list[dict[str, str]]) -> None:
    with _server().client() as client:
        run = client.runs.watch("job_1")
    assert run.curves == {"loss": [(1.0, 1.0), (2.0, 1.0), (3.0, 1.0)]}
    assert run.job.state == "succeeded"
    assert "svg" in read(notebook[-1]["text/html"]).seen


def test_asyncio_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with _server().async_client() as client:
            stream = await client.chat(*ASKED, stream=True)
            assert (await stream.show()).num_tokens == 9
            assert (await client.runs.watch("job_1")).job.state == "succeeded"

    asyncio.run(main())
    out = capsys.readouterr().out
    assert "metric  step 1  loss 1" in out


def test_a_stream_of_nothing_is_an_error() -> None:
    with pytest.raises(ServerUnreachable, match="before anything came"):
        live.show([])
    file = io.StringIO()
    log = live.LogView()
    with pytest.raises(ServerUnreachable, match="without its job"):
        log.result()
    assert live.show([Chunk("a")], file).text == "a"


def test_a_pipe_gets_few_whole_lines() -> None:
    file = io.StringIO()
    now = [0.0]
    line = LineBar(file, lambda: now[0])
    for done in range(1001):
        now[0] = done / 100
        line.show("rows\x1b[31m", done, 1000, "rows")
    lines = file.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[5] == "rows  50 %  500 of 1000 rows  100/s  5.0 s left"
    assert lines[-1] == "rows  100 %  1000 of 1000 rows  100/s"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("pull", 0, 0, "bytes", 0), "pull  0 B"),
        (("pull", 1024 * 512, 1024 * 1024, "bytes", 2), "pull  50 %  512 KiB of 1 MiB  256 KiB/s"),
        (("x", 3, 0, "", 0), "x  3"),
    ],
)
def test_a_bar_as_text(given: Any, text: str) -> None:
    assert text_of(*given).startswith(text)


def test_a_silent_bar_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with PullBar(make_bar(False)) as told:
        told(PullProgress("download", "f", 1, 2))
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar_and_without_rich_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    assert place_of(file) is Place.TERMINAL
    with PullBar(make_bar(True, file)) as told:
        told(PullProgress("download", "model.bin", 5, 10))
    assert "download model.bin" in file.getvalue()
    assert "\x1b[" in file.getvalue()
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    assert isinstance(make_bar(True, file), LineBar)


def test_a_notebook_has_one_that_is_left_at_its_end(notebook: list[dict[str, str]]) -> None:
    with PullBar(make_bar(True)) as told:
        for done in range(1001):
            told(PullProgress("download", "f", done, 1000))
    assert "100 %" in notebook[-1]["text/plain"]
    assert "width:100.0%" in notebook[-1]["text/html"]
    assert len(notebook) < 100


def _waiting() -> Server:
    looks = iter([{"job": JOB}, {"job": JOB}, DONE])
    return Server(
        {
            "GET /os/v1/jobs/job_1": lambda _: httpx.Response(200, json=next(looks)),
            "GET /os/v1/processes/job_1/wait": httpx.Response(
                200, json={"info": PROCESS, "decisions": []}
            ),
        }
    )


def test_waiting_moves_a_bar_and_gives_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    server = _waiting()
    with server.client() as client:
        job = client.jobs.wait("job_1", progress=True)
    assert job.job.state == "succeeded"
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "job_1 measuring  25 %  3 of 12 rows  " + err[0].rpartition("rows  ")[2]
    assert err[-1].startswith("job_1 succeeded")
    asked = [request.url.path for request in server.requests]
    assert asked.count("/os/v1/processes/job_1/wait") == 2
    with _waiting().client() as client:
        assert client.tasks.wait("job_1").job.state == "succeeded"
    assert capsys.readouterr().err == ""


def test_waiting_without_blocking() -> None:
    async def main() -> None:
        async with _waiting().async_client() as client:
            assert (await client.jobs.wait("job_1")).job.state == "succeeded"
        async with _waiting().async_client() as client:
            assert (await client.tasks.wait("job_1")).job.state == "succeeded"

    asyncio.run(main())


def test_a_pull_with_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"type": "pull_progress", "phase": "download", "file": "f", "done_bytes": 5}
    body = sse({**told, "total_bytes": 10}, event="progress") + sse(MODEL, event="done")
    server = Server({"POST /os/v1/models": lambda _: httpx.Response(200, stream=Pieces(body))})
    with server.client() as client:
        assert client.models.pull("hf:org/pilot", progress=True).ref == "pilot:1"
        assert "download f  50 %" in capsys.readouterr().err
        seen: list[PullProgress] = []
        client.models.pull("hf:org/pilot", progress=seen.append)
        assert seen[0].done_bytes == 5
    assert capsys.readouterr().err == ""


def _studies(tmp_path: Any) -> tuple[Server, Any]:
    data = tmp_path / "data.csv"
    data.write_text("text,label\nfine,positive\n")
    file = {"id": "file_1", "bytes": 3, "created_at": 1, "filename": "data.csv", "purpose": "batch"}
    outputs = {**JOB["outputs"], "files": {"raw:json": "file_9"}}
    done = {"job": {**DONE["job"], "outputs": outputs}}
    events = [json.loads(json.dumps(one)) for one in METRICS]
    server = Server(
        {
            "POST /v1/files": httpx.Response(200, json=file),
            "POST /os/v1/jobs": httpx.Response(200, json={"job": JOB}),
            "GET /os/v1/jobs": httpx.Response(200, json={"jobs": [JOB]}),
            "GET /os/v1/jobs/job_1": httpx.Response(200, json=done),
            "GET /os/v1/jobs/job_1/events": httpx.Response(200, json={"events": events}),
            "GET /v1/files/file_9/content": httpx.Response(200, json=REPORT),
        }
    )
    return server, data


def test_a_run_is_begun_with_its_data_and_looked_at(tmp_path: Any) -> None:
    server, data = _studies(tmp_path)
    with server.client() as client:
        client.runs.train({"name": "mine", "objective": "classify", "base": "b:1"}, train=data)
        assert server.body() == {
            "program": "train",
            "inputs": {
                "recipe": {
                    "name": "mine",
                    "objective": "classify",
                    "base": "b:1",
                    "data": {"train": "data.csv"},
                }
            },
            "name": "mine",
            "files": {"train": "file_1"},
            "models": {"base": "b:1"},
        }
        assert len(client.runs.list().jobs) == 1
        assert client.runs.show("job_1").curves["loss"][0] == (1.0, 1.0)


def test_an_evaluation_is_begun_with_its_data_and_looked_at(tmp_path: Any) -> None:
    server, data = _studies(tmp_path)
    with server.client() as client:
        with pytest.raises(InvalidRequest, match="kind"):
            client.evaluations.start({"model": "sentiment"}, data)
        assert server.requests == []
        client.evaluations.start({"kind": "classify", "model": "sentiment"}, data)
        assert server.body()["inputs"] == {
            "eval": {"kind": "classify", "model": "sentiment", "format": "csv"}
        }
        assert server.body()["files"] == {"data": "file_1"}
        assert len(client.evaluations.list().jobs) == 1
        assert client.evaluations.show("job_1").confusion == [[5, 1], [2, 7]]
        train = {"job": {**JOB, "spec": {"program": "train"}}}
        server.routes["GET /os/v1/jobs/job_1"] = httpx.Response(200, json=train)
        with pytest.raises(InvalidRequest, match="no evaluation"):
            client.evaluations.show("job_1")


def test_studies_without_blocking(tmp_path: Any) -> None:
    server, data = _studies(tmp_path)

    async def main() -> None:
        async with server.async_client() as client:
            await client.runs.train({"name": "m", "objective": "classify"}, train=data)
            assert (await client.runs.show("job_1")).job.state == "succeeded"
            await client.evaluations.start({"kind": "classify", "model": "s"}, data)
            assert (await client.evaluations.show("job_1")).labels == ["negative", "positive"]

    asyncio.run(main())


def test_a_log_of_lines_is_followed_until_the_server_stops(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = [{"level": "info", "message": HOSTILE}, {"level": "error", "message": "m2"}]
    body = sse(*told) + sse({"error": {"code": "shutting_down", "message": "over"}}, event="error")
    server = Server(
        {
            "GET /os/v1/logs": lambda request: (
                httpx.Response(200, stream=Pieces(body))
                if "follow" in request.url.params
                else httpx.Response(200, json={"entries": told})
            )
        }
    )
    with server.client() as client:
        assert client.logs(2) == told
        stream = client.follow_logs(2)
        assert [next(stream), next(stream)] == told
        with pytest.raises(ShuttingDown):
            next(stream)
        with pytest.raises(ShuttingDown):
            client.follow_logs(2).show()
    out = capsys.readouterr().out
    assert "m2" in out
    assert "\x1b" not in out
