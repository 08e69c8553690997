"""The price of exactness by width: decoding in deterministic mode beside packed steps.

The driver alone, as `bench_determinism` has it: prompts are read before the clock starts; on one
thread the clock is the process's CPU time.
"""

from __future__ import annotations

import time

from benchmarks import bench_determinism, models
from benchmarks.harness import Result, paired
from benchmarks.memory.system import Options
from llmos.drivers.native.driver import NativeDriver

WIDTHS = (1, 4, 8, 16)
DTYPE = "bfloat16"
NUM_TOKENS = 16


def rows(result: Result, options: Options) -> None:
    """Tokens per second of both at each width, by turns."""
    num_runs = 1 if options.small else 9 if options.full else 5
    driver = bench_determinism.load(models.folder("60m"), DTYPE, "cpu", 1)
    for width in WIDTHS:
        exact, packed = [], []
        for _ in range(num_runs):
            exact.append(_rate(driver, width, True))
            packed.append(_rate(driver, width, False))
        what = f"60m {DTYPE}, {width} rows of {bench_determinism.NUM_SLOTS}: deterministic"
        result.add(paired(what, "tokens/s", exact, "packed", packed))
    driver.unload()


def _rate(driver: NativeDriver, width: int, exact: bool) -> float:
    return bench_determinism.decode_rate(driver, width, NUM_TOKENS, exact, time.process_time)
