"""Decode tokens/s of every type at several widths, and whether a slower one is warned of.

Driver and kernels, no server; the types by turns. One thread, and its processor time, so that other
work on the machine changes little.
"""

from __future__ import annotations

import statistics
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

from benchmarks.engine.plots import Series
from benchmarks.harness import Result, Row, paired, single
from benchmarks.quality.scores import DTYPES, spec_of
from llmos.abi.events import Tokens
from llmos.abi.inference import Sampling, WorkItem
from llmos.drivers.native.driver import NativeDriver
from llmos.weights.inspection import inspect
from llmos.weights.processor import choose_dtype

WIDTHS = (1, 8, 16, 32)
PEERS = {"float16": "float32", "bfloat16": "float32", "int8": "bfloat16", "int4": "bfloat16"}
"""Of every type the one that it is meant to be faster than."""

PROMPT = [1, 5, 9, 200, 7, 8, 20, 30]
TURN_STEPS = 24


class Decoding:
    """`width` greedy streams of a driver, from the moment that all decode."""

    def __init__(self, driver: NativeDriver, width: int, num_tokens: int) -> None:
        self._driver = driver
        self._width = width
        sampling = Sampling(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
        for n in range(width):
            driver.submit(WorkItem(f"r{n}", array("i", PROMPT).tobytes(), sampling))
        while sum(isinstance(e, Tokens) for e in driver.step()) < width:
            pass

    def rate(self, num_steps: int) -> float:
        """Tokens per second of processor time."""
        began = time.process_time()
        for _ in range(num_steps):
            self._driver.step()
        return num_steps * self._width / (time.process_time() - began)

    def close(self) -> None:
        """Forget the streams."""
        for n in range(self._width):
            self._driver.abort(f"r{n}", "measured")
        self._driver.step()


def load(folder: Path, dtype: str) -> NativeDriver:
    """Without guesses: what is measured is a step."""
    options = {"engine": "fused", "guesses": False}
    driver = NativeDriver()
    driver.load(
        spec_of(folder, dtype, num_slots=max(WIDTHS), options=options), lambda fraction, what: None
    )
    return driver


def measure(folder: Path, repetitions: int) -> dict[int, dict[str, list[float]]]:
    """Tokens/s of every turn, by width and type."""
    drivers = {dtype: load(folder, dtype) for dtype in DTYPES}
    found: dict[int, dict[str, list[float]]] = {}
    for width in WIDTHS:
        num_tokens = (repetitions + 2) * TURN_STEPS
        decodings = {d: Decoding(drivers[d], width, num_tokens) for d in DTYPES}
        rates: dict[str, list[float]] = {dtype: [] for dtype in DTYPES}
        for turn in range(repetitions + 1):  # the first warms up
            for dtype, decoding in decodings.items():
                rate = decoding.rate(TURN_STEPS)
                if turn:
                    rates[dtype].append(rate)
        for decoding in decodings.values():
            decoding.close()
        found[width] = rates
    for driver in drivers.values():
        driver.unload()
    return found


def rows(name: str, folder: Path, result: Result, repetitions: int, series: Series) -> None:
    """Every type beside the one it is meant to be faster than; notes where it is not."""
    lines = series.setdefault(f"{name}: tokens/s by streams", {})
    num_parameters = inspect(folder).num_parameters
    for width, rates in measure(folder, repetitions).items():
        for dtype in DTYPES:
            figure = f"{name}, {dtype}, {width} streams: decode"
            lines.setdefault(dtype, []).append((width, statistics.median(rates[dtype])))
            peer = PEERS.get(dtype)
            if peer is None:
                result.add(single(figure, "tokens/s", rates[dtype]))
                continue
            row = paired(figure, "tokens/s", rates[dtype], peer, rates[peer])
            result.add(row)
            result.notes += _verdict(row, name, dtype, width, num_parameters)


def _verdict(row: Row, name: str, dtype: str, width: int, num_parameters: int) -> Iterator[str]:
    """Slower beyond doubt, and what a user is told."""
    if row.high is None or row.high >= 1:
        return
    warnings = choose_dtype(dtype, "float32", "cpu", num_parameters).warnings
    said = f'warned of: "{warnings[0]}"' if warnings else "and NOT warned of"
    yield (
        f"{name}: {dtype} is slower than {row.peer} at {width} streams "
        f"({row.ratio:g}, at most {row.high:g}), {said}."
    )
