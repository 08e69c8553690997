"""d. Short requests beside a long one: sliced on one row of echo, beside it on native rows."""

from __future__ import annotations

from threading import Thread

from benchmarks.harness import paired, percentile, single
from benchmarks.sched import system
from benchmarks.sched.arrivals import poisson
from benchmarks.sched.records import OK, Record, of_group
from benchmarks.sched.system import Context
from benchmarks.serving import Server

RATE = 2.0
TOKEN_MS = 10
SHORT_S = 0.2
LONG_S = 30.0
HEAD_START_S = 1.0


def measure(context: Context) -> None:
    """p99 of the short ones. Echo under `fair` and `fifo` at once: it costs nothing."""
    ours, peer = _Sliced("fair"), _Sliced("fifo")
    ours.join()
    peer.join()
    figure = f"{SHORT_S:g} s requests at {RATE:g}/s beside one of {LONG_S:g} s, one row: p99"
    context.result.add(paired(f"{figure}, fair", "s", [ours.p99_s], "fifo", [peer.p99_s]))
    context.result.add(single("… and the long one took", "s", [ours.long_s]))
    context.keep("latency of 0.2 s requests, s", "fair, one row", ours.latencies_s)
    context.keep("latency of 0.2 s requests, s", "fifo, one row", peer.latencies_s)
    _beside(context)


class _Sliced(Thread):
    """One server with one row."""

    def __init__(self, policy: str) -> None:
        super().__init__()
        self._policy = policy
        self.latencies_s: list[float] = []
        self.p99_s = self.long_s = float("nan")
        self.start()

    def run(self) -> None:
        settings = (f"kernel.policy={self._policy}", "kernel.num_slots=1")
        with system.echo(*settings) as server:
            script = {"delay_ms": TOKEN_MS}
            num_short, num_long = (round(s * 1000 / TOKEN_MS) for s in (SHORT_S, LONG_S))
            due_s = [HEAD_START_S + at for at in poisson(RATE, LONG_S, 1)]
            short = system.echo_group(server, "short", script | {"tokens": num_short}, due_s=due_s)
            long = system.echo_group(server, "long", script | {"tokens": num_long}, due_s=[0.0])
            records = system.run(server, [long, short], HEAD_START_S + LONG_S, drain_s=45.0)
        self._read(records)

    def _read(self, records: list[Record]) -> None:
        if any(record.status != OK for record in records):
            raise RuntimeError(f"not all were answered: {records[-1]}")
        self.latencies_s = [r.latency_s for r in of_group(records, "short")]
        self.p99_s = percentile(self.latencies_s, 0.99)
        self.long_s = of_group(records, "long")[0].latency_s


def _beside(context: Context) -> None:
    """Native: both have rows and share the steps. Lengths are fitted to the machine."""
    duration_s = context.window_s(15.0, LONG_S)
    with system.native(context.model) as server:
        token_s, prompt_s = _speed(server)
        num_short = max(1, round((SHORT_S - prompt_s) / token_s))
        num_long = min(800, round(LONG_S / token_s))
        due_s = [HEAD_START_S + at for at in poisson(RATE, duration_s - HEAD_START_S, 2)]
        short = system.group(
            server, "short", output_tokens=num_short, prompt_tokens=16, due_s=due_s
        )
        long = system.group(server, "long", output_tokens=num_long, due_s=[0.0])
        alone = system.group(
            server, "short", output_tokens=num_short, prompt_tokens=16, due_s=due_s
        )
        beside = [r.latency_s for r in _short(system.run(server, [long, short], duration_s, 3.0))]
        apart = [r.latency_s for r in _short(system.run(server, [alone], duration_s, 3.0))]
    figure = f"native, {num_short} tokens at {RATE:g}/s beside one of {num_long}: p99"
    ours, peer = percentile(beside, 0.99), percentile(apart, 0.99)
    context.result.add(paired(figure, "s", [ours], "without it", [peer]))
    context.keep("latency of 0.2 s requests, s", "native, beside the long one", beside)
    context.keep("latency of 0.2 s requests, s", "native, without it", apart)


def _short(records: list[Record]) -> list[Record]:
    return [r for r in of_group(records, "short") if r.status == OK]


def _speed(server: Server) -> tuple[float, float]:
    """Seconds per token and until the first of 16 prompt tokens, alone."""
    probe = system.group(server, "probe", output_tokens=24, prompt_tokens=16, due_s=[0.0, 2.5, 5.0])
    records = system.run(server, [probe], 6.0, drain_s=5.0)
    firsts = [r.ttft_s for r in records if r.ttft_s is not None]
    token_s = [(r.token_s[-1] - r.token_s[0]) / (len(r.token_s) - 1) for r in records]
    return sorted(token_s)[1], sorted(firsts)[1]
