"""What memory management keeps and costs: exact suspension, its price, models that take turns.

Real workers behind a real server over HTTP, models of random weights. `--only` picks parts; the
default is short, `--full` takes the long windows and the 0.4 B model where a part has a choice.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable

from benchmarks import harness, models

NUM_PLANS = 100_000
OURS = ("exact", "cost", "interactive", "alternate", "zipf", "flights", "determinism")
"""Parts that take the options; the others are called as CALLS says."""

Rows = Callable[..., object]
CALLS: dict[str, Callable[[Rows, harness.Result, argparse.Namespace], object]] = {
    **{name: lambda rows, result, options: rows(result, options) for name in OURS},
    "footprint": lambda rows, result, options: rows(result),
    "ready": lambda rows, result, options: rows(result, models.folder("0.4b")),
    "plans": lambda rows, result, options: rows(result, NUM_PLANS),
    "zipf_sim": lambda rows, result, options: rows(result),
}
PARTS = tuple(CALLS)


def run_part(name: str, result: harness.Result, options: argparse.Namespace) -> None:
    """Its rows; one that is not there, or that fails, says so in a line or raises."""
    try:
        module = importlib.import_module(f"benchmarks.memory.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"benchmarks.memory.{name}":
            raise
        print(f"{name}: not there yet")
        return
    began = time.perf_counter()
    CALLS[name](module.rows, result, options)
    print(f"-- {name}: {time.perf_counter() - began:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--full", action="store_true", help="the long windows")
    parser.add_argument("--small", action="store_true", help="just to see that it works")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: {', '.join(PARTS)}")
    result = harness.Result("memory", harness.command("memory"))
    try:
        for name in chosen:
            run_part(name, result, options)
    finally:  # what was measured before one fails is kept
        print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
