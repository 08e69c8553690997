"""One replica run full in a process of its own: what it held, as JSON on standard output.

`python -m benchmarks.memory.child CASE`: every row at its full context, greedy and drawn with all
that drawing can be asked for, in exact steps and in packed ones.
"""

from __future__ import annotations

import json
import sys
from array import array
from pathlib import Path

import msgspec

from benchmarks import models
from benchmarks.memory import shapes
from benchmarks.memory.shapes import Case
from llmos.abi.driver import MemoryReport, ReplicaSpec
from llmos.abi.inference import Sampling, WorkItem
from llmos.drivers.native.driver import NativeDriver

NUM_DECODED = 8
DRAWN = Sampling(
    temperature=1.0,
    top_p=0.9,
    top_k=40,
    min_p=0.001,
    seed=1,
    frequency_penalty=0.1,
    presence_penalty=0.1,
    repetition_penalty=1.1,
    max_tokens=NUM_DECODED,
    ignore_eos=True,
)
NUCLEUS = Sampling(temperature=9.0, top_p=0.99, seed=1, max_tokens=NUM_DECODED, ignore_eos=True)


def load(case: Case, folder: Path) -> NativeDriver:
    driver = NativeDriver()
    spec = ReplicaSpec(
        model_id=case.name,
        folder=str(folder),
        scratch="",
        weights_digest="",
        context_length=case.context_length,
        num_slots=case.num_slots,
        num_threads=1,
    )
    driver.load(spec, lambda fraction, what: None)
    return driver


def fill(driver: NativeDriver, case: Case, sampling: Sampling, exact: bool) -> None:
    """Every row to the last token of the context."""
    vocab_size = case.shape.vocab_size
    for row in range(case.num_slots):
        tokens = models.tokens(case.context_length - NUM_DECODED, row, vocab_size)
        item = WorkItem(f"{row}", array("i", tokens).tobytes(), sampling, deterministic=exact)
        driver.submit(item)
    while driver.wait_s() is not None:
        driver.step()


def main() -> None:
    """Print the reports after loading and after running full."""
    case = next(case for case in shapes.CASES if case.name == sys.argv[1])
    driver = load(case, shapes.folder(case))
    reports: list[MemoryReport] = [driver.memory()]
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    for sampling, exact in ((DRAWN, True), (NUCLEUS, False)):
        fill(driver, case, sampling, exact)
        reports.append(driver.memory())
    print(json.dumps([msgspec.to_builtins(report) for report in reports]))


if __name__ == "__main__":
    main()
