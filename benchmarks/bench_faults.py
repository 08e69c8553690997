"""What a fault costs: a killed worker, a client that leaves, a reader that stalls.

Everything over HTTP, against a real server with real workers. The stalled reader's peer is the same
server without one, in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx

from benchmarks import harness
from benchmarks.load import Plan
from benchmarks.serving import HOST, Server, load, serving

NUM_STREAMS = 63
TOKENS_PER_STREAM = 200
SPARE_TIMEOUT_S = 60.0
POLL_S = 0.002


def echo(**script: Any) -> dict[str, Any]:
    message = {"role": "user", "content": "x"}
    return {"model": "echo", "messages": [message], "llmos": {"driver": script}}


def client_of(server: Server) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://{HOST}:{server.port}",
        headers={"Authorization": f"Bearer {server.token}"},
        timeout=60.0,
    )


def wait_for_spare(client: httpx.Client, num_replicas: int) -> None:
    """Until every driver that serves has its warm spare."""
    deadline = time.monotonic() + SPARE_TIMEOUT_S
    while time.monotonic() < deadline:
        states = [w["state"] for w in client.get("/os/v1/workers").json()["workers"]]
        if states.count("spare") >= num_replicas:
            return
        time.sleep(0.05)
    raise RuntimeError("no warm spare came up")


def worker_pid(client: httpx.Client, model: str) -> int:
    replicas = client.get("/os/v1/replicas").json()["replicas"]
    worker = next(
        r["worker_id"] for r in replicas if r["model"].startswith(model) and r["state"] == "ready"
    )
    workers = client.get("/os/v1/workers").json()["workers"]
    return int(next(w["pid"] for w in workers if w["worker_id"] == worker))


def kill(client: httpx.Client, model: str, body: dict[str, Any], route: str) -> tuple[float, float]:
    """Seconds from SIGKILL to the stream's error event, and to the end of the next request."""
    with client.stream("POST", route, json=body | {"stream": True}) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        next(lines), next(lines)
        os.kill(worker_pid(client, model), signal.SIGKILL)
        killed = time.perf_counter()
        *_, last = lines
        ended_s = time.perf_counter() - killed
    if json.loads(last.removeprefix("data: "))["error"]["code"] != "worker_lost":
        raise RuntimeError(f"the stream ended with {last}")
    answer = client.post(route, json=body | {"max_tokens": 1, "stream": False})
    answer.raise_for_status()
    return ended_s, time.perf_counter() - killed


def leave(client: httpx.Client, server: Server) -> float:
    """Seconds from a client's disconnect to its slot being free."""
    request = server.request(echo(tokens=5000, delay_ms=20) | {"stream": True})
    with socket.create_connection((HOST, server.port)) as sock:
        sock.sendall(request)
        sock.recv(65536)
    left = time.perf_counter()
    while num_running(client):
        time.sleep(POLL_S)
    return time.perf_counter() - left


def num_running(client: httpx.Client) -> int:
    replicas = client.get("/os/v1/replicas").json()["replicas"]
    return sum(r["num_running"] for r in replicas)


@contextlib.contextmanager
def stalled_reader(server: Server) -> Iterator[None]:
    """One client that asks for a long stream and reads none of it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((HOST, server.port))
        sock.sendall(server.request(echo(tokens=100_000) | {"stream": True}))
        time.sleep(0.5)  # its buffers fill, and it is paused
        yield


def streams_s(server: Server) -> float:
    """Median seconds of a stream among 63 at once."""
    body = echo(tokens=TOKENS_PER_STREAM, delay_ms=5)
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    outcome = load(Plan("stream", HOST, server.port, server.request(body), NUM_STREAMS))
    return statistics.median(outcome.latencies_s)


def measure_kills(result: harness.Result, repetitions: int) -> None:
    prompt = {"model": "pilot", "prompt": "Once", "max_tokens": 400, "ignore_eos": True}
    chat, completions = "/v1/chat/completions", "/v1/completions"
    cases = {"echo": (echo(tokens=5000, delay_ms=5), chat), "pilot": (prompt, completions)}
    options = ("--preload", "echo", "--preload", "pilot")
    with serving(*options) as (server, _), client_of(server) as client:
        for model, (body, route) in cases.items():
            times = []
            for _ in range(repetitions):
                wait_for_spare(client, len(cases))
                times.append(kill(client, model, body, route))
            ended, again = zip(*times, strict=True)
            driver = "echo" if model == "echo" else "native"
            result.add(harness.single(f"kill -9, {driver}: to the error event", "s", ended))
            result.add(harness.single(f"kill -9, {driver}: to the next answer", "s", again))
        freed = [leave(client, server) for _ in range(repetitions)]
        result.add(harness.single("client leaves: slot free", "s", freed))


def measure_stall(result: harness.Result, repetitions: int) -> None:
    options = ("--preload", "echo", "--set", "kernel.num_slots=64")
    options += ("--set", "kernel.stall_timeout_s=60", "--set", "kernel.max_context_tokens=200000")
    ours, peer = [], []
    with serving(*options) as (server, _):
        streams_s(server)
        for _ in range(repetitions):
            peer.append(streams_s(server))
            with stalled_reader(server):
                ours.append(streams_s(server))
    name = f"{NUM_STREAMS} streams beside a stalled reader"
    result.add(harness.paired(name, "s", ours, "without it", peer))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    result = harness.Result("faults", harness.command("faults"))
    measure_kills(result, arguments.repetitions)
    measure_stall(result, arguments.repetitions)
    print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
