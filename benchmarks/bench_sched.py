"""What the scheduler keeps: latency by class, shares, goodput under overload. The real server.

Parts: a interactive beside batch, b shares of tenants, c overload, d short beside long, e many
clients, f a trace beside its simulation. `--only a,b` picks some; `--full` takes the 0.4 B model
and the long windows. `fifo` is the same build with `kernel.policy=fifo`; the barrier batch is
`benchmarks/sched/barrier.py`.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks import harness
from benchmarks.sched.plots import plot_series
from benchmarks.sched.system import Context

PARTS = {
    "a": "interactive",
    "b": "shares",
    "c": "overload",
    "d": "short_long",
    "e": "many",
    "f": "trace",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, as in a,b")
    parser.add_argument("--full", action="store_true", help="the long windows")
    parser.add_argument("--model", help="60m, 60m-fp32, 0.4b, 0.4b-fp32")
    arguments = parser.parse_args()
    model = arguments.model or ("0.4b" if arguments.full else "60m")
    result = harness.Result("sched", harness.command("sched"))
    context = Context(result, model, arguments.full)
    for part in arguments.only.split(","):
        module = importlib.import_module(f"benchmarks.sched.parts.{PARTS[part]}")
        module.measure(context)
    print(result.write().relative_to(harness.ROOT))
    plot_series(context.series, harness.RESULTS / "sched-lines.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
