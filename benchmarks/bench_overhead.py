"""What HTTP, kernel and ipc add over the driver called directly, and how fast things start.

The peer is the echo driver in a plain loop in one process: prompt prepared, submitted, stepped to
its end. Ours is the same driver behind `llmos serve`, over HTTP. Every repetition measures both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.load import Plan
from benchmarks.serving import HOST, Server, has_wrk, load, peak, serving
from llmos.abi.driver import ReplicaSpec
from llmos.abi.events import Finished, Tokens
from llmos.abi.inference import ChatPrompt, PrepareItem, Sampling, WorkItem
from llmos.drivers.echo import VOCAB_SIZE, EchoDriver, EchoPreparer

PEER = "driver in process"
NUM_STREAMS = 64
STREAM_TOKENS = 1000
PEAK_CONNECTIONS = 32
MESSAGES = [{"role": "user", "content": "a"}]
MS = 1e3


class Direct:
    """The peer: one loaded echo driver."""

    def __init__(self) -> None:
        self._driver, self._preparer = EchoDriver(), EchoPreparer()
        spec = ReplicaSpec("mdl_bench", "/", "/", "", 1 << 20, NUM_STREAMS, 1)
        self._driver.load(spec, lambda fraction, what: None)
        self._count = 0

    def submit(self, options: dict[str, Any]) -> None:
        self._count += 1
        request_id = f"req_{self._count:032x}"
        item = PrepareItem(request_id, "", "/", ChatPrompt(MESSAGES), VOCAB_SIZE)
        tokens = self._preparer.prepare(item).tokens
        self._driver.submit(WorkItem(request_id, tokens, Sampling(), options=options))

    def drain(self, num_requests: int) -> int:
        """Step until that many have finished; the tokens they emitted."""
        tokens = finished = 0
        while finished < num_requests:
            for event in self._driver.step():
                if isinstance(event, Tokens):
                    tokens += len(event.token_ids)
                elif isinstance(event, Finished):
                    finished += 1
        return tokens

    def latencies_s(self, num_requests: int) -> list[float]:
        """One request after another."""
        found = []
        for _ in range(num_requests):
            began = time.perf_counter()
            self.submit({})
            self.drain(1)
            found.append(time.perf_counter() - began)
        return found

    def tokens_per_s(self) -> float:
        began = time.perf_counter()
        for _ in range(NUM_STREAMS):
            self.submit({"tokens": STREAM_TOKENS})
        return self.drain(NUM_STREAMS) / (time.perf_counter() - began)


class Runs:
    """What the repetitions measured, by figure."""

    def __init__(self) -> None:
        self.ours: dict[str, list[float]] = {}
        self.peer: dict[str, list[float]] = {}

    def note(self, figure: str, ours: float, peer: float | None = None) -> None:
        self.ours.setdefault(figure, []).append(ours)
        if peer is not None:
            self.peer.setdefault(figure, []).append(peer)


def repeat(server: Server, direct: Direct, runs: Runs, seed: int, scale: float) -> None:
    """One repetition of everything a running server is asked."""
    model = {"model": "echo", "messages": MESSAGES}
    request = server.request(model)
    alone = direct.latencies_s(2000)
    p50, p99 = harness.percentile(alone, 0.5), harness.percentile(alone, 0.99)

    one = load(Plan("closed", HOST, server.port, request, 1, 4 * scale)).latencies_s
    note_latency(runs, "one client", one, (p50, p99))

    rate = peak(server, request, PEAK_CONNECTIONS, max(1, round(5 * scale)))
    runs.note("peak", rate, 1 / statistics.fmean(alone))

    plan = Plan("paced", HOST, server.port, request, 64, 6 * scale, rate / 2, seed)
    half = load(plan)
    note_latency(runs, "half of peak", half.latencies_s, (p50, p99))
    runs.note("late", half.late_s * MS)

    options = {"llmos": {"driver": {"tokens": STREAM_TOKENS}}}
    streaming = {**model, **options, "stream": True, "stream_options": {"include_usage": True}}
    outcome = load(Plan("stream", HOST, server.port, server.request(streaming), NUM_STREAMS))
    if outcome.tokens != NUM_STREAMS * STREAM_TOKENS:
        raise RuntimeError(f"{outcome.tokens} tokens came of {NUM_STREAMS} x {STREAM_TOKENS}")
    runs.note("tokens", outcome.tokens / outcome.wall_s, direct.tokens_per_s())


def note_latency(
    runs: Runs, when: str, latencies_s: list[float], direct_s: tuple[float, float]
) -> None:
    for name, share, direct in (("p50", 0.5, direct_s[0]), ("p99", 0.99, direct_s[1])):
        ours = harness.percentile(latencies_s, share)
        runs.note(f"{name}, {when}", ours * MS, direct * MS)
        runs.note(f"added {name}, {when}", (ours - direct) * MS)


def report(result: harness.Result, runs: Runs) -> None:
    """Rows in the order of the figures' first appearance."""
    tool = "wrk" if has_wrk() else "own client, wrk is not installed"
    names = {
        "peak": (f"peak, one-token answers, {PEAK_CONNECTIONS} connections ({tool})", "requests/s"),
        "tokens": (f"streamed tokens, {NUM_STREAMS} streams, one event each", "tokens/s"),
        "late": ("the load client's own worst lateness, half of peak", "ms"),
        "help": ("llmos --help", "s"),
        "ready": ("serve to ready, echo loaded", "s"),
    }
    for figure, values in runs.ours.items():
        name, unit = names.get(figure, (figure, "ms"))
        if figure in runs.peer:
            result.add(harness.paired(name, unit, values, PEER, runs.peer[figure]))
        else:
            result.add(harness.single(name, unit, values))


def help_s() -> float:
    """Wall time of `llmos --help`, the installed script."""
    command = [str(Path(sys.executable).with_name("llmos")), "--help"]
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env={**os.environ})
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="shorten the runs for a trial")
    arguments = parser.parse_args()
    result = harness.Result("overhead", harness.command("overhead"))
    runs, direct = Runs(), Direct()
    with serving("--preload", "echo") as (server, _):
        warm = server.request({"model": "echo", "messages": MESSAGES})
        load(Plan("closed", HOST, server.port, warm, 8, 1.0))
        for repetition in range(arguments.repetitions):
            repeat(server, direct, runs, repetition + 1, arguments.scale)
    for _ in range(arguments.starts):
        runs.note("help", help_s())
        with serving("--preload", "echo") as (_, ready_s):
            runs.note("ready", ready_s)
    report(result, runs)
    print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
