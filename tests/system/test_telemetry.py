"""Traces, metrics, logs, use and the bundle of a real server, with a prompt that none may hold."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.abi.spent import Spent
from llmos.sdk import Client
from tests.system.server import Server

PLANTED = "Xq7-unguessable-Zz9"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
CHAT = {
    "model": "echo",
    "messages": [{"role": "user", "content": f"please echo {PLANTED}"}],
    "max_tokens": 40,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ["--preload", "echo"]
    for setting in ("traces=file", "log_requests=true", "log_format=json", "trace_steps=4"):
        options += ["--set", f"telemetry.{setting}"]
    running = Server(tmp_path_factory.mktemp("telemetry") / "home", *options).start()
    try:
        yield running
        assert running.stop() == 0, running.log
    finally:
        running.kill()


@pytest.fixture(scope="module")
def request_id(server: Server) -> str:
    """Of a traced request."""
    with server.client() as client:
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
        answer = client.post("/v1/chat/completions", json=CHAT, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-request-id"]


def spans(server: Server, count: int) -> list[dict[str, Any]]:
    """Of the caller's trace, once there are so many."""
    deadline = time.monotonic() + 20
    while True:
        path = server.home / "logs" / "traces.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [
            span
            for line in lines
            for scoped in json.loads(line)["resourceSpans"][0]["scopeSpans"]
            for span in scoped["spans"]
            if span["traceId"] == TRACE
        ]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_a_trace_reaches_from_the_caller_to_the_engines_steps(
    server: Server, request_id: str
) -> None:
    found = spans(server, 11)
    by_id = {span["spanId"]: span for span in found}
    answer = next(s for s in found if s["name"] == "POST /v1/chat/completions")
    assert answer["parentSpanId"] == CALLER
    request = next(s for s in found if s["name"] == "chat echo:1")
    assert request["parentSpanId"] == answer["spanId"]
    told = {a["key"]: next(iter(a["value"].values())) for a in request["attributes"]}
    assert told["gen_ai.response.id"] == request_id
    assert told["gen_ai.request.max_tokens"] == "40"
    stages = {s["name"] for s in found if s.get("parentSpanId") == request["spanId"]}
    assert {"llmos.prepare", "llmos.queue", "llmos.prefill", "llmos.decode"} <= stages
    steps = [s for s in found if s["name"] == "llmos.step"]
    assert len(steps) == 4
    assert int(told["llmos.num_steps"]) > 4
    assert {by_id[s["parentSpanId"]]["name"] for s in steps} == {"llmos.prefill", "llmos.decode"}
    for span in found:
        start, end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
        assert start <= end
        if (parent := by_id.get(span.get("parentSpanId", ""))) and span["name"] != "llmos.step":
            assert int(parent["startTimeUnixNano"]) - 2_000_000 <= start
            assert end <= int(parent["endTimeUnixNano"]) + 2_000_000


def test_what_a_request_used_is_in_its_story(server: Server, request_id: str) -> None:
    with Client(home=server.home) as client:
        spent = client.processes.show(request_id).info.spent
    assert isinstance(spent, Spent)
    assert spent.cpu_s > 0
    assert spent.engine_s > 0
    assert spent.joules is not None
    assert spent.joules > 0
    assert spent.basis == "rapl" or spent.basis.startswith("estimate: 7 W")


def test_metrics_have_every_name_and_count_what_was_used(server: Server, request_id: str) -> None:
    with server.client() as client:
        text = _until(client, 'engine_sleep_state{model_name="echo:1",sleep_state="awake"} 1.0')
    found = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in text.splitlines()}
    assert float(found['llmos:request_cpu_seconds_total{model_name="echo:1"}']) > 0
    assert float(found['vllm:request_decode_time_seconds_count{model_name="echo:1"}']) >= 1
    assert "gen_ai_server_time_per_output_token_seconds_bucket" in text


def test_the_log_has_the_request_and_its_trace(server: Server, request_id: str) -> None:
    lines = [json.loads(x) for x in (server.home / "logs" / "llmos.log").read_text().splitlines()]
    (line,) = [x for x in lines if x.get("request_id") == request_id]
    assert (line["logger"], line["trace_id"]) == ("llmos.requests", TRACE)
    assert line["outcome"] == "finished"


def test_a_job_says_what_it_used(server: Server) -> None:
    with Client(home=server.home) as client:
        made = client.jobs.submit({"program": "drill", "inputs": {"steps": 3}})
        client.processes.wait(made.job.job_id, 60)
        events = client.jobs.events(made.job.job_id, kinds=["spent"])
    (event,) = events
    assert event.value["cpu_s"] > 0
    assert event.value["memory_bytes"] > 1_000_000
    assert event.value["joules"] > 0


def test_no_file_of_telemetry_holds_the_prompt(
    server: Server, request_id: str, tmp_path: Path
) -> None:
    spans(server, 11)
    path = tmp_path / "case.tar.gz"
    command = [sys.executable, "-m", "llmos.cli.main", "debug", "bundle", "-o", str(path), "--json"]
    environment = {"LLMOS_HOME": str(server.home), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    parts = json.loads(done.stdout)["parts"]
    absent = {name for name, told in parts.items() if told.startswith("not here")}
    assert absent == {"logs/serve.log"}  # it was not started in the background
    with tarfile.open(path) as archive:
        bodies = {m.name: archive.extractfile(m).read().decode() for m in archive}  # type: ignore[union-attr]
    token = (server.home / "token").read_text().strip()
    for name, body in bodies.items():
        assert PLANTED not in body, name
        assert token not in body, name
    assert any(request_id in body for body in bodies.values())
    for file in (server.home / "logs").iterdir():
        assert PLANTED not in file.read_text(errors="replace"), file.name


def test_a_trace_context_that_is_none_is_ignored(server: Server) -> None:
    with server.client() as client:
        for header in (f"00-{'0' * 32}-{CALLER}-01", "00-x-y-01", f"00-{TRACE}-{'0' * 16}-01"):
            answer = client.post("/v1/chat/completions", json=CHAT, headers={"traceparent": header})
            assert answer.status_code == 200


def test_a_collector_that_is_not_there_costs_traces_only(tmp_path: Path) -> None:
    own = Server(
        tmp_path / "home",
        *("--preload", "echo", "--set", "telemetry.traces=otlp"),
        *("--set", "telemetry.traces_url=http://127.0.0.1:9/v1/traces"),
        *("--set", "telemetry.traces_timeout_s=1"),
    ).start()
    try:
        with own.client() as client:
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
            _until(client, "llmos:traces_dropped_total 2.0")
        assert own.stop() == 0, own.log
    finally:
        own.kill()


def test_all_that_was_traced_and_logged_is_there_after_a_stop(tmp_path: Path) -> None:
    own = Server(
        tmp_path / "home",
        *("--preload", "echo", "--set", "telemetry.traces=file"),
        *("--set", "telemetry.log_requests=true"),
    ).start()
    try:
        with own.client() as client:
            asked = [client.post("/v1/chat/completions", json=CHAT) for _ in range(20)]
        assert own.stop() == 0, own.log  # SIGTERM, before either is due
    finally:
        own.kill()
    ids = [answer.headers["x-request-id"] for answer in asked]
    logs = own.home / "logs"
    lines = map(json.loads, (logs / "llmos.log").read_text().splitlines())
    assert [x["request_id"] for x in lines if x["logger"] == "llmos.requests"] == ids
    traces = (logs / "traces.jsonl").read_text()
    assert [traces.count(f'"{request_id}"') for request_id in ids] == [3] * 20


def test_a_killed_scribe_is_replaced_and_no_request_hears_of_it(tmp_path: Path) -> None:
    own = Server(
        tmp_path / "home", *("--preload", "echo", "--set", "telemetry.traces=file")
    ).start()
    traces = own.home / "logs" / "traces.jsonl"
    try:
        with own.client() as client:
            first = _scribe(own, client, not_pid=0)
            os.kill(first, signal.SIGKILL)
            second = _scribe(own, client, not_pid=first)
            dropped = _until(client, "llmos:traces_dropped_total ")
            assert "llmos:traces_dropped_total 0.0" not in dropped
            answer = client.post("/v1/chat/completions", json=CHAT)
        assert own.stop() == 0, own.log
        assert not Path(f"/proc/{second}").exists()
    finally:
        own.kill()
    assert answer.headers["x-request-id"] in traces.read_text()
    assert "traces are lost" in (own.home / "logs" / "llmos.log").read_text()


def _scribe(server: Server, client: httpx.Client, not_pid: int) -> int:
    """The process, once there is another one than `not_pid`: it is started by what is traced."""
    deadline = time.monotonic() + 30
    while True:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
                is_one = b"telemetry.scribe" in (path / "cmdline").read_bytes()
                if is_one and parent == str(server.pid) and int(path.name) != not_pid:
                    return int(path.name)
        assert time.monotonic() < deadline, "there is none"
        time.sleep(0.05)


def _until(client: httpx.Client, sample: str) -> str:
    """Metrics that have it: gauges are set now and then."""
    deadline = time.monotonic() + 30
    while sample not in (text := client.get("/metrics").text):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    return text
