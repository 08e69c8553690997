"""What compiled steps of the torch runner bring and cost: beside eager ones, and the fused engine.

60 million random parameters in bfloat16, decode only, the three by turns; one thread and its
processor time, so that other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import harness, models
from benchmarks.quality.scores import spec_of
from benchmarks.quality.speed import TURN_STEPS, Decoding
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.eager import EagerRunner
from llmos.drivers.resident import read_resident

WIDTHS = (1, 8, 16)
SIDES: dict[str, dict[str, Any]] = {
    "compiled": {"engine": "torch", "compile": True},
    "eager": {"engine": "torch"},
    "fused": {"engine": "fused", "guesses": False},
}
WAIT_S = 900


def load(folder: Path, side: str, cache: Path) -> NativeDriver:
    driver = NativeDriver()
    spec = spec_of(
        folder,
        "bfloat16",
        num_slots=max(WIDTHS),
        options=SIDES[side],
        cache=str(cache),
        deterministic=False,
    )
    driver.load(spec, lambda fraction, what: None)
    return driver


def spent_s() -> float:
    """Processor time of this process and of those it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def compile_width(driver: NativeDriver, width: int) -> tuple[float, int]:
    """Seconds of processor time, compilers' included, and bytes of memory of no file added."""
    assert isinstance(driver._runner, EagerRunner)
    compiled = driver._runner.batch.compiled
    assert compiled is not None
    before_bytes, began_s = read_resident().anonymous_bytes, spent_s()
    compiled.find(width)
    if not compiled.wait(WAIT_S) or compiled.find(width) is None:
        raise RuntimeError(driver.health().detail)
    return spent_s() - began_s, read_resident().anonymous_bytes - before_bytes


def costs(result: harness.Result, folder: Path, cache: Path) -> NativeDriver:
    """With an empty cache, then with what that left in it; the second replica."""
    for state in ("an empty", "a full"):
        driver = load(folder, "compiled", cache)
        for width in WIDTHS:
            took_s, added_bytes = compile_width(driver, width)
            figure = f"compiling {width} rows, {state} cache"
            result.add(harness.single(figure, "s of processor time", [took_s]))
            result.add(harness.single(f"{figure}: added", "MB", [added_bytes / 1e6]))
        if state == "an empty":
            driver.unload()
            gc.collect()
    return driver


def measure(
    result: harness.Result, drivers: dict[str, NativeDriver], width: int, repetitions: int
) -> None:
    """Rows of one width."""
    num_tokens = (repetitions + 2) * TURN_STEPS
    decodings = {side: Decoding(drivers[side], width, num_tokens) for side in SIDES}
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(repetitions + 1):  # the first warms up
        for side, decoding in decodings.items():
            rate = decoding.rate(TURN_STEPS)
            if turn:
                rates[side].append(rate)
    for decoding in decodings.values():
        decoding.close()
    for peer in ("eager", "fused"):
        figure = f"60m bfloat16, {width} streams: decode, compiled"
        row = harness.paired(figure, "tokens/s", rates["compiled"], peer, rates[peer])
        result.add(row)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    result = harness.Result("compile", harness.command("compile"))
    folder = models.folder("60m")
    with tempfile.TemporaryDirectory() as cache:
        compiled = costs(result, folder, Path(cache))
        drivers = {side: load(folder, side, Path(cache)) for side in SIDES if side != "compiled"}
        for width in WIDTHS:
            measure(result, {"compiled": compiled, **drivers}, width, options.repetitions)
        result.notes.append(f"After it the compiled replica said: {compiled.health().detail}.")
        for driver in (compiled, *drivers.values()):
            driver.unload()
    print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
