"""A model that a second LLMOS answers for: what the way through us costs, and whether a remote that
dies loses a request.

Latency: chats of an echo, one after another over one connection, asked of the remote itself and
through us, in turns. Fail-over: streams in parallel over two remotes, of which the first is killed
with requests in mid-answer and in its queue. Each request must end: answered, or told that its
remote broke off in mid-answer. Whatever ends in any other way is lost.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx

from benchmarks import harness
from benchmarks.load import Plan
from benchmarks.serving import HOST, Server, load, serving

NUM_TOKENS = 16
STREAM_TOKENS = 40
DELAY_MS = 10
NUM_STREAMS = 32
"""At once, in the fail-over part; a remote has rows for some of them, the others queue there."""

TIMEOUT_S = 120.0


@contextmanager
def remotes(num: int) -> Iterator[list[Server]]:
    """Servers with an echo."""
    with ExitStack() as stack:
        yield [stack.enter_context(serving("--preload", "echo"))[0] for _ in range(num)]


def register(front: Server, name: str, ends: list[Server], extra: dict[str, Any]) -> None:
    """A remote model of `front`. Keys go into its folder of secrets."""
    folder = front.home / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    endpoints = []
    for number, end in enumerate(ends):
        key = f"remote_{number}"
        path = folder / key
        path.touch(mode=0o600)
        path.write_text(end.token)
        url = f"http://{HOST}:{end.port}/v1"
        endpoints.append({"url": url, "model": "echo", "key": key, "extra": extra})
    source = f"openai:{endpoints[0]['url']}#echo"
    body = {"source": source, "name": name, "remote": {"endpoints": endpoints}}
    with client(front) as asking:
        answer = asking.post("/os/v1/models", json=body)
        if "event: done" not in answer.text:
            raise RuntimeError(answer.text)
        asking.post("/v1/chat/completions", json=chat(name, 1)).raise_for_status()


def client(server: Server) -> httpx.Client:
    """With the administrator's key."""
    headers = {"Authorization": f"Bearer {server.token}"}
    return httpx.Client(base_url=f"http://{HOST}:{server.port}", headers=headers, timeout=TIMEOUT_S)


def chat(model: str, num_tokens: int, **more: Any) -> dict[str, Any]:
    """A body whose answer is so long, with a text to say."""
    messages = [{"role": "user", "content": "An operating system for language models."}]
    return {"model": model, "messages": messages, "max_tokens": num_tokens, **more}


def latency(result: harness.Result, repetitions: int, duration_s: float) -> None:
    """Milliseconds of a whole chat."""
    with remotes(1) as (far,), serving() as (near, _):
        register(near, "far", [far], {})
        ours, theirs = [], []
        for _ in range(repetitions):
            for server, model, values in ((far, "echo", theirs), (near, "far", ours)):
                request = server.request(chat(model, NUM_TOKENS))
                plan = Plan("closed", HOST, server.port, request, 1, duration_s)
                values.append(1000 * statistics.median(load(plan).latencies_s))
    figure = f"a chat of {NUM_TOKENS} tokens through us: median"
    result.add(harness.paired(figure, "ms", ours, "asked directly", theirs))


def fail_over(result: harness.Result, num_requests: int) -> None:
    """The first of two remotes is killed when a quarter of the streams have ended."""
    script = {"llmos": {"driver": {"tokens": STREAM_TOKENS, "delay_ms": DELAY_MS}}}
    with remotes(2) as (first, second), serving() as (front, _):
        register(front, "both", [first, second], script)
        ends: list[str] = []
        waits_s: list[float] = []
        due = threading.Event()

        def one(_: int) -> None:
            end, first_s = listen(front, "both")
            ends.append(end)
            waits_s.append(first_s)
            if len(ends) >= num_requests // 4:
                due.set()

        with ThreadPoolExecutor(NUM_STREAMS) as pool:
            streams = [pool.submit(one, n) for n in range(num_requests)]
            due.wait(TIMEOUT_S)
            stop_at_once(first)
            for stream in streams:
                stream.result()
        counted = Counter(ends)
        answered = counted["length"] + counted["stop"]
        told = counted["remote_failed"]
    for figure, value in (
        ("streams asked for, the first of two remotes killed", num_requests),
        ("answered whole", answered),
        ("told that their remote broke off in mid-answer", told),
        ("lost", num_requests - answered - told),
    ):
        result.add(harness.Row(figure, value, "requests"))
    slowest = harness.round4(max(waits_s))
    result.add(harness.Row("longest wait for a first token", slowest, "s"))


def stop_at_once(server: Server) -> None:
    """As a power cut does."""
    os.killpg(server.process.pid, signal.SIGKILL)


def listen(server: Server, model: str) -> tuple[str, float]:
    """Why a stream ended, or the code of its error, and seconds until its first text. An answer of
    another length than asked for has not ended."""
    began_s, first_s, num_chars, end = time.perf_counter(), 0.0, 0, "nothing"
    with client(server) as asking:
        body = chat(model, STREAM_TOKENS, stream=True)
        with asking.stream("POST", "/v1/chat/completions", json=body) as answer:
            for line in answer.iter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    return str(event["error"]["code"]), first_s
                for choice in event.get("choices", ()):
                    num_chars += len(choice["delta"].get("content") or "")
                    first_s = first_s or (time.perf_counter() - began_s) * bool(num_chars)
                    end = choice["finish_reason"] or end
    return (end if num_chars == STREAM_TOKENS else "cut"), first_s


def main() -> int:
    """0; a lost request is 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--duration", type=float, default=2.0, help="seconds of each repetition")
    parser.add_argument("--requests", type=int, default=400, help="of the fail-over part")
    given = parser.parse_args()
    result = harness.Result("remote", harness.command("remote"))
    latency(result, given.repetitions, given.duration)
    fail_over(result, given.requests)
    result.write()
    return int(any(row.figure == "lost" and row.value for row in result.rows))


if __name__ == "__main__":
    sys.exit(main())
