"""Whether a replica's memory was foretold: estimates and bounds beside measured peaks.

For each shape a process of its own loads it by the driver and runs it full. The estimate is the
ledger's before anything is loaded: base, footprint, KV; its peer is the most the process ever held.
The bound is the loaded driver's `bound_bytes`; its peer is the most that was held from then on.
Ratios have to be 1 or more, and near it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import msgspec

from benchmarks.harness import ROOT, Result, paired, single
from benchmarks.memory import shapes
from benchmarks.memory.shapes import Case
from llmos.abi.driver import MemoryReport
from llmos.drivers.catalog import DRIVERS
from llmos.weights import inspect


def estimate_bytes(case: Case) -> int:
    """As the kernel reckons before it starts a worker."""
    facts = inspect(shapes.folder(case))
    slots = case.num_slots * case.context_length * facts.kv_bytes_per_token
    return DRIVERS["native"].base_bytes + facts.footprint_bytes + slots


def run(case: Case) -> list[MemoryReport]:
    """Reports after loading and after each way of running full."""
    shapes.folder(case)  # made here, so that making it is not measured
    command = [sys.executable, "-m", "benchmarks.memory.child", case.name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return msgspec.json.decode(done.stdout, type=list[MemoryReport])


def rows(result: Result, cases: list[Case] | None = None) -> None:
    """Add two figures for each shape, and the worst of all."""
    estimates, bounds = [], []
    for case in shapes.CASES if cases is None else cases:
        loaded, *full = run(case)
        later = max(report.peak_bytes for report in full)
        peak = max(loaded.peak_bytes, later)
        estimated = estimate_bytes(case)
        size = f"{case.name}, {case.num_slots} x {case.context_length}"
        result.add(paired(f"{size}: estimate", "MB", [estimated / 1e6], "peak", [peak / 1e6]))
        bound = loaded.bound_bytes
        result.add(paired(f"{size}: bound", "MB", [bound / 1e6], "later peak", [later / 1e6]))
        estimates.append(estimated / peak)
        bounds.append(bound / later)
    result.add(single("estimate / peak, least", "x", [min(estimates)]))
    result.add(single("estimate / peak, most", "x", [max(estimates)]))
    result.add(single("bound / later peak, least", "x", [min(bounds)]))
    result.add(single("bound / later peak, most", "x", [max(bounds)]))


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", help="names of shapes")
    options = parser.parse_args()
    cases = [c for c in shapes.CASES if options.only is None or c.name in options.only]
    result = Result("memory-footprint", "python -m benchmarks.memory.footprint")
    rows(result, cases)
    result.write()


if __name__ == "__main__":
    main()
