"""What a context switch costs: bytes and milliseconds per 1,000 tokens of context.

A request with so many tokens of context is suspended to a file and resumed from it until it is in
a row again; the peer reads the same tokens anew (recompute). One at a time, on one thread, the
three side by side in every run. The file is in the page cache when it is read: that is a switch
under load, not one after a restart. `--folder /dev/shm` keeps it in memory. With one thread the
clock is the process's CPU time, so that other work on the machine changes little; nothing here
waits for a disk.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks import models
from benchmarks.harness import ROOT, Result, command, paired, single
from llmos.abi.driver import ReplicaSpec
from llmos.abi.events import Tokens
from llmos.abi.inference import Sampling, WorkItem
from llmos.drivers.native.driver import NativeDriver


def cases(lengths: list[int]) -> Iterator[tuple[str, Path, int, int]]:
    """Name, folder, size of the vocabulary and tokens of context of each case."""
    data = Path(os.environ.get("LLMOS_TEST_DATA") or ROOT.parent / "shared" / "data")
    stories = data / "models" / "stories260k"
    if stories.is_dir():
        yield "stories260k", stories, 512, 448
    for length in lengths:
        yield "llama 60M random", models.folder("60m"), models.SHAPES["60m"].vocab_size, length


def load(folder: Path, snapshots: Path, length: int, num_threads: int) -> NativeDriver:
    """A driver of four rows that hold so many tokens and some more."""
    driver = NativeDriver()
    spec = ReplicaSpec(
        model_id="bench",
        folder=str(folder),
        scratch=str(snapshots),
        weights_digest="",
        context_length=length + 64,
        num_slots=4,
        num_threads=num_threads,
        snapshots=str(snapshots),
    )
    driver.load(spec, lambda fraction, what: None)
    return driver


def make_item(request_id: str, length: int, vocab_size: int) -> WorkItem:
    tokens = models.tokens(length, 1, vocab_size)
    sampling = Sampling(temperature=0.0, max_tokens=32, ignore_eos=True)
    return WorkItem(request_id, array("i", tokens).tobytes(), sampling)


def begin(driver: NativeDriver, item: WorkItem) -> None:
    """Submit, and step until its first token is there."""
    driver.submit(item)
    while not any(isinstance(event, Tokens) for event in driver.step()):
        pass


def timed_ms(act: Callable[[], object]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began_s = clock()
    act()
    return 1000 * (clock() - began_s)


def switch(driver: NativeDriver, item: WorkItem) -> tuple[int, float, float]:
    """Suspend a running request and resume it: bytes, and milliseconds of both."""
    taken = []
    suspend_ms = timed_ms(lambda: taken.append(driver.suspend(item.request_id)))

    def resume() -> None:
        driver.resume(item, taken[0])
        driver._seats.fill()  # what the next step begins with: back into a row

    resume_ms = timed_ms(resume)
    Path(taken[0].path).unlink()
    return taken[0].size_bytes, suspend_ms, resume_ms


def end(driver: NativeDriver, request_id: str) -> None:
    driver.abort(request_id, "measured")
    driver.step()


def measure(result: Result, name: str, driver: NativeDriver, item: WorkItem, num_runs: int) -> None:
    """The rows of one case."""
    num_tokens = len(item.tokens) // 4
    per_1000 = 1000 / num_tokens
    begin(driver, item)
    switch(driver, item)  # once for the caches
    end(driver, item.request_id)
    sizes, suspends, resumes, wholes, again = [], [], [], [], []
    for _ in range(num_runs):
        again.append(timed_ms(lambda: begin(driver, item)) * per_1000)
        size_bytes, suspend_ms, resume_ms = switch(driver, item)
        end(driver, item.request_id)
        sizes.append(size_bytes)
        suspends.append(suspend_ms * per_1000)
        resumes.append(resume_ms * per_1000)
        wholes.append((suspend_ms + resume_ms) * per_1000)
    what = f"{name}, {num_tokens} tokens"
    result.add(single(f"{what}: bytes", "MB/1000", [s * per_1000 / 1e6 for s in sizes]))
    result.add(single(f"{what}: suspend", "ms/1000", suspends))
    result.add(paired(f"{what}: resume", "ms/1000", resumes, "recompute", again))
    result.add(paired(f"{what}: suspend and resume", "ms/1000", wholes, "recompute", again))
    rates = [s * per_1000 / ms / 1e6 for s, ms in zip(sizes, suspends, strict=True)]
    result.add(single(f"{what}: suspend", "GB/s", rates))
    rates = [s * per_1000 / ms / 1e6 for s, ms in zip(sizes, resumes, strict=True)]
    result.add(single(f"{what}: resume", "GB/s", rates))


def main() -> None:
    """Measure all cases and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 3072])
    parser.add_argument("--folder", type=Path, help="where snapshots go")
    options = parser.parse_args()
    result = Result("snapshot", command("snapshot"))
    for name, folder, vocab_size, length in cases(options.lengths):
        with tempfile.TemporaryDirectory(dir=options.folder) as snapshots:
            driver = load(folder, Path(snapshots), length, options.threads)
            item = make_item("a", length, vocab_size)
            measure(result, name, driver, item, options.runs)
            driver.unload()
    result.write()


if __name__ == "__main__":
    main()
