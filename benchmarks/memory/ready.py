"""How soon a replica is ready: unparked, and loaded anew, beside reading its weights' bytes.

The peer is `safetensors.torch.load_file` and a touch of every byte, in a process that has its
engine imported, as has ours. All by turns, in one process, the file in the system's cache. Ready
means that a step may follow: a load maps, probes and proves its rows alike; an unpark does not.
`--dtype` another than the file's shows weights that are cast, and so read anew.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks import models
from benchmarks.harness import Result, paired, single
from llmos.abi.driver import ReplicaSpec
from llmos.drivers.native.driver import NativeDriver


def spec_of(folder: Path, dtype: str) -> ReplicaSpec:
    return ReplicaSpec(
        model_id="bench",
        folder=str(folder),
        scratch="",
        weights_digest="",
        context_length=4096,
        num_slots=16,
        num_threads=1,
        dtype=dtype,
    )


def load(spec: ReplicaSpec) -> NativeDriver:
    driver = NativeDriver()
    driver.load(spec, lambda fraction, what: None)
    return driver


def read_bytes(folder: Path) -> None:
    """Every byte of the weights, once: the largest of a page's bytes hides none of them."""
    for path in sorted(folder.glob("*.safetensors")):
        for tensor in load_file(path).values():
            tensor.contiguous().view(-1).view(torch.uint8).max()


def timed_ms(act: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - began_s)


def rows(result: Result, folder: Path, dtype: str = "auto", num_runs: int = 9) -> None:
    """Add the figures of one model."""
    spec = spec_of(folder, dtype)
    kept = load(spec)
    read_bytes(folder)  # once for the caches
    reads, unparks, parks, loads = [], [], [], []
    for _ in range(num_runs):
        parks.append(timed_ms(kept.park))
        reads.append(timed_ms(lambda: read_bytes(folder)))
        unparks.append(timed_ms(kept.unpark))
        fresh: list[NativeDriver] = []
        loads.append(timed_ms(lambda: fresh.append(load(spec))))  # noqa: B023 (called at once)
        fresh[0].unload()
    parked = kept.park()
    what = f"{folder.name} {dtype}"
    result.add(paired(f"{what}: unpark", "ms", unparks, "reading its bytes", reads))
    result.add(paired(f"{what}: load", "ms", loads, "reading its bytes", reads))
    result.add(single(f"{what}: park", "ms", parks))
    result.add(single(f"{what}: held while parked", "MB", [parked.rss_bytes / 1e6]))
    kept.unload()


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--model", default="0.4b")
    parser.add_argument("--dtype", nargs="+", default=["auto"])
    options = parser.parse_args()
    result = Result("memory-ready", "python -m benchmarks.memory.ready")
    for dtype in options.dtype:
        rows(result, models.folder(options.model), dtype, options.runs)
    result.write()


if __name__ == "__main__":
    main()
