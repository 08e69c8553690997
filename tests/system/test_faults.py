"""Workers killed in mid-stream, readers that stall, clients that leave."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.server import Server


def echo(text: str = "x", stream: bool = True, **script: Any) -> dict[str, Any]:
    return {
        "model": "echo",
        "messages": [{"role": "user", "content": text}],
        "stream": stream,
        "llmos": {"driver": script},
    }


def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> float:
    """Poll until true; how long it took, in seconds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < timeout_s, "it never came true"
        threading.Event().wait(0.01)
    return time.monotonic() - begun


def worker_of(client: httpx.Client, model: str) -> int:
    replicas = client.get("/os/v1/replicas").json()["replicas"]
    (replica,) = [r for r in replicas if r["model"].startswith(model) and r["state"] == "ready"]
    workers = client.get("/os/v1/workers").json()["workers"]
    (worker,) = [w for w in workers if w["worker_id"] == replica["worker_id"]]
    return int(worker["pid"])


def spares(client: httpx.Client) -> list[int]:
    """Process ids of workers that wait warm for the next load."""
    workers = client.get("/os/v1/workers").json()["workers"]
    return [w["pid"] for w in workers if w["role"] == "replica" and w["state"] == "spare"]


def states(client: httpx.Client) -> list[str]:
    return [p["state"] for p in client.get("/os/v1/processes").json()["processes"]]


def data_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def test_a_killed_worker_ends_its_stream_with_an_error_and_nobody_elses(
    spared_server: Server,
) -> None:
    """And the next answer is that of the spare."""
    server = spared_server
    server.options += ("--preload", "echo", "--preload", "pilot")
    server.start()
    with server.client() as client:
        until(lambda: len(spares(client)) == 2, timeout_s=60.0)  # of each driver
        warm = spares(client)
        slow = {
            "model": "pilot",
            "prompt": "Tell me",
            "max_tokens": 300,
            "ignore_eos": True,
            "stream": True,
        }
        with (
            client.stream("POST", "/v1/completions", json=slow) as other,
            client.stream(
                "POST", "/v1/chat/completions", json=echo(tokens=5_000, delay_ms=20)
            ) as victim,
        ):
            lines, others = data_of(victim.iter_lines()), data_of(other.iter_lines())
            next(lines), next(lines), next(others)
            os.kill(worker_of(client, "echo"), signal.SIGKILL)
            killed = time.monotonic()
            *_, last = lines
            ended_s = time.monotonic() - killed
            assert last["error"]["code"] == "worker_lost"
            assert ended_s < 2.0
            answer = client.post("/v1/chat/completions", json=echo("again", stream=False))
            assert answer.json()["choices"][0]["message"]["content"] == "again"
            assert time.monotonic() - killed < 5.0
            assert worker_of(client, "echo") in warm
            *_, end = others
            assert end["choices"][0]["finish_reason"] == "length"


def test_a_crash_loop_is_an_error_each_time_and_the_server_lives(own_server: Server) -> None:
    server = own_server.start()
    with server.client() as client:
        for _ in range(4):
            answer = client.post("/v1/chat/completions", json=echo(stream=False, crash_after=0))
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"]["code"] in ("worker_lost", "load_failed")
            assert "retry-after" in answer.headers
        assert client.get("/readyz").status_code == 200


def test_a_stalled_reader_is_ended_and_slows_nobody(own_server: Server) -> None:
    server = own_server
    server.options = (
        *("--preload", "echo", "--set", "kernel.num_slots=64"),
        *("--set", "kernel.stall_timeout_s=1", "--set", "kernel.max_context_tokens=100000"),
    )
    server.start()
    body = json.dumps(echo(tokens=50_000)).encode()  # more than the socket's buffers hold
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as stalled, server.client() as client:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer " + server.token.encode() + b"\r\n"
            b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )

        def stream(i: int) -> int:
            wanted = echo(f"stream {i}", tokens=200, delay_ms=1)
            with client.stream("POST", "/v1/chat/completions", json=wanted) as answer:
                chunks = list(data_of(answer.iter_lines()))
            assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
            return sum(bool(c["choices"][0]["delta"].get("content")) for c in chunks)

        client.timeout = httpx.Timeout(60.0)
        with ThreadPoolExecutor(63) as pool:
            assert list(pool.map(stream, range(63))) == [200] * 63
        until(lambda: "running" not in states(client) and "paused" not in states(client))
        ended = client.get("/os/v1/processes").json()["processes"]
        (one,) = [p for p in ended if p["state"] in ("failed", "aborted")]
        assert "reader_stalled" in one["reason"] or "left" in one["reason"], one


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot_within_a_second(
    client: httpx.Client, server: Server, stream: bool
) -> None:
    body = json.dumps(echo(stream=stream, tokens=5_000, delay_ms=20)).encode()
    host, port = server.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    sock.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + server.token.encode() + b"\r\n"
        b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    until(lambda: "running" in states(client))
    sock.close()
    assert until(lambda: "running" not in states(client)) < 1.0
    replicas = client.get("/os/v1/replicas").json()["replicas"]
    assert all(replica["num_running"] == 0 for replica in replicas)


def test_a_waiting_client_that_leaves_is_forgotten(client: httpx.Client, server: Server) -> None:
    """Sixteen slots are taken; the seventeenth leaves the queue."""
    with ThreadPoolExecutor(17) as pool:
        holders = [
            pool.submit(
                client.post,
                "/v1/chat/completions",
                json=echo(stream=False, tokens=2, delay_ms=1500),
            )
            for _ in range(16)
        ]
        until(lambda: states(client).count("running") == 16)
        with pytest.raises(httpx.TimeoutException):
            client.post("/v1/chat/completions", json=echo(stream=False), timeout=0.2)
        assert until(lambda: "waiting" not in states(client)) < 1.0
        assert all(holder.result().status_code == 200 for holder in holders)


def test_kill_ends_a_stream(client: httpx.Client) -> None:
    body = echo(tokens=5_000, delay_ms=20)
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = data_of(answer.iter_lines())
        next(lines)
        processes = client.get("/os/v1/processes").json()["processes"]
        (running,) = [p for p in processes if p["state"] == "running"]
        assert client.delete(f"/os/v1/processes/{running['process_id']}").status_code == 200
        *_, last = lines
    assert "killed by admin" in json.dumps(last)


def test_a_full_queue_answers_429_at_once(own_server: Server) -> None:
    server = own_server
    server.options = (
        *("--preload", "echo", "--set", "kernel.num_slots=1"),
        *("--set", "kernel.max_waiting_per_model=2"),
    )
    server.start()
    with server.client() as client, ThreadPoolExecutor(8) as pool:
        body = echo(stream=False, tokens=1, first_delay_ms=1500)
        answers = [
            f.result()
            for f in [pool.submit(client.post, "/v1/chat/completions", json=body) for _ in range(8)]
        ]
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] * 3 + [429] * 5
    refused = next(a for a in answers if a.status_code == 429)
    assert float(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "queue_full"


def test_the_server_drains_on_sigterm_and_leaves_no_process(spared_server: Server) -> None:
    server = spared_server
    server.options += ("--preload", "echo")
    server.start()
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        until(lambda: spares(client))
        pids = [worker_of(client, "echo"), *spares(client)]
        body = echo("slow", stream=False, first_delay_ms=700)
        answer = pool.submit(client.post, "/v1/chat/completions", json=body)
        until(lambda: "running" in states(client))
        assert server.stop() == 0
        assert answer.result().json()["choices"][0]["message"]["content"] == "slow"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_die_with_a_killed_server(spared_server: Server) -> None:
    server = spared_server
    server.options += ("--preload", "echo")
    server.start()
    with server.client() as client:
        until(lambda: spares(client))
        pids = [worker_of(client, "echo"), *spares(client)]
    os.kill(server.pid, signal.SIGKILL)
    assert until(lambda: all(map(_is_gone, pids))) < 2.0
    server.kill()
    server.start()  # the home opens again


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_a_second_server_on_the_same_home_is_refused(server: Server) -> None:
    other = server.cli("serve", "--home", str(server.home), "--port", "0")
    assert other.returncode == 1
    assert "in use" in other.stderr


def test_a_busy_port_is_an_error_and_not_a_traceback(server: Server, own_server: Server) -> None:
    port = server.url.rsplit(":", 1)[1]
    other = server.cli("serve", "--home", str(own_server.home), "--port", port)
    assert other.returncode == 1
    assert "another program listens" in other.stderr
    assert "Traceback" not in other.stderr
