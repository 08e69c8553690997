"""e. More clients than rows: how near the server comes to what the rows allow."""

from __future__ import annotations

import statistics

from benchmarks.harness import paired
from benchmarks.sched import system
from benchmarks.sched.records import OK, goodput
from benchmarks.sched.system import Context

NUM_CLIENTS = 250
NUM_ROWS = 64
HOLD_S = 0.2
SETTLE_S = 2.0


def measure(context: Context) -> None:
    """Requests per second; the bound is rows / time of a request."""
    duration_s = SETTLE_S + context.window_s(8.0, 30.0)
    rates = []
    with system.echo(f"kernel.num_slots={NUM_ROWS}") as server:
        script = {"first_delay_ms": HOLD_S * 1000, "tokens": 1}
        for _ in range(5 if context.full else 2):
            clients = system.echo_group(server, "client", script, closed=NUM_CLIENTS)
            records = system.run(server, [clients], duration_s)
            if any(record.status not in (0, OK) for record in records):
                raise RuntimeError("a client was refused")
            rates.append(goodput(records, SETTLE_S, duration_s))
            latencies = [r.latency_s for r in records if r.status == OK and r.due_s > SETTLE_S]
            context.keep(f"latency of {NUM_CLIENTS} clients, s", "echo", latencies)
    figure = f"{NUM_CLIENTS} clients on a {HOLD_S * 1000:g} ms echo with {NUM_ROWS} rows"
    bound = [NUM_ROWS / HOLD_S] * len(rates)
    context.result.add(paired(figure, "requests/s", rates, "bound", bound))
    assert statistics.median(rates) > 0
