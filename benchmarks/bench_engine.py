"""The native engine through the whole server beside what a user would pick instead.

Models of random weights; ours over HTTP from another process, each peer in a virtual environment of
its own (made first, outside of the repository), all loaded side by side and run in turn, whoever
waits at rest. Parts: widths (decode, prefill, times, the bandwidth bound), prefix, context, trace
(with `--trace FILE.csv`). `--full` (FULL=1 of make): more repetitions, longer runs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks import harness
from benchmarks.engine import bandwidth, ours, plots
from benchmarks.engine.environments import PEERS
from benchmarks.engine.options import Context

PARTS = ("widths", "prefix", "context", "trace")
MODELS = ("0.4b", "60m")


def listed(text: str, allowed: tuple[str, ...], what: str) -> list[str]:
    """Of a list with commas. Raises ValueError for one that is not there."""
    chosen = [word for word in text.split(",") if word]
    if unknown := [word for word in chosen if word not in allowed]:
        raise ValueError(f"no {what} {', '.join(unknown)}: {', '.join(allowed)}")
    return chosen


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    names = tuple(peer.name for peer in PEERS)
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    made.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    made.add_argument("--precisions", default=",".join(ours.PRECISIONS), help="bf16, int8, int4")
    made.add_argument("--widths", default="1,8,16,32", help="streams at once")
    made.add_argument("--peers", default=",".join(names), help=f"of {', '.join(names)}")
    made.add_argument("--repetitions", type=int, help="of each run; 3, in full 7")
    made.add_argument(
        "--threads", type=int, help="of every engine; else all cores, ours its choice"
    )
    made.add_argument("--trace", type=Path, help="TIMESTAMP, ContextTokens, GeneratedTokens")
    made.add_argument("--trace-rate", type=float, default=0.5, help="requests per second")
    made.add_argument("--trace-requests", type=int, default=40, help="how many, from the first")
    made.add_argument("--full", action="store_true", help="longer, FULL=1 of make")
    return made


def context(options: argparse.Namespace) -> Context:
    """What the parts are given. Raises ValueError."""
    full = options.full
    names = listed(options.peers, tuple(peer.name for peer in PEERS), "peer")
    result = harness.Result("engine", harness.command("engine"))
    made = Context(
        result,
        listed(options.models, MODELS, "model"),
        listed(options.precisions, tuple(ours.PRECISIONS), "precision"),
        sorted(int(width) for width in options.widths.split(",")),
        [peer for peer in PEERS if peer.name in names],
        options.repetitions or (7 if full else 3),
        options.threads or len(os.sched_getaffinity(0)),
        full,
        options.threads or 0,
        options.trace,
        options.trace_rate,
        options.trace_requests,
    )
    result.notes.append(
        f"A peer has {made.num_threads} threads, ours {made.our_threads or 'what it chooses'}; "
        f"{max(made.widths)} slots. Ours is driven "
        f"over HTTP by another process, the peers in their own. Memory: {bandwidth.WAY}."
    )
    return made


def main() -> int:
    made = parser()
    options = made.parse_args()
    try:
        given = context(options)
        parts = listed(options.only, PARTS, "part")
    except ValueError as error:
        made.error(str(error))
    if not ours.source().is_relative_to(harness.ROOT):
        given.report("Ours ran workers of another checkout than the commit above says.")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # servers stop too
    try:
        for name in parts:
            began = time.perf_counter()
            importlib.import_module(f"benchmarks.engine.{name}").measure(given)
            print(f"-- {name}: {time.perf_counter() - began:.0f} s", flush=True)
    finally:  # what was measured before one fails is kept
        path = given.result.write(draw=lambda result, at: _draw(given, at))
        print(path.relative_to(harness.ROOT))
    return 0


def _draw(given: Context, path: Path) -> None:
    result = given.result
    plots.draw(given.series, f"{result.name}, {result.date[:10]}, {result.commit}", path)


if __name__ == "__main__":
    sys.exit(main())
