"""Tokens guessed ahead: by lookup and by a draft model, beside the same engine without guesses.

Real text of the tiny model stories260k, in the process of the driver, no server around it. Tiny as
it is, a step of it takes no longer than the Python around a guess, so it shows what guessing costs
where it cannot pay. `wide` is the same model given the cost of 79 M parameters (see
`benchmarks.drafts`), which says nothing about how often a draft of another family is right: that is
what `near` (often), `short` (sometimes) and `random` (never) stand for. Answers are compared, and
have to be equal.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import drafts, harness
from llmos.abi.driver import DraftSpec, ReplicaSpec
from llmos.abi.events import Failed, Tokens
from llmos.abi.inference import Sampling, WorkItem
from llmos.drivers.native.driver import NativeDriver

CONTEXT = 256
NUM_TOKENS = 200
WIDTHS = (1, 4)
TEMPERATURES = (0.0, 0.8)
PLAIN = "without guesses"


class Side(NamedTuple):
    """One loaded driver."""

    name: str
    driver: NativeDriver


def data() -> Path:
    """Raises FileNotFoundError naming what is missing."""
    root = Path(os.environ.get("LLMOS_TEST_DATA") or harness.ROOT.parent / "shared" / "data")
    found = root / "models" / "stories260k"
    if not found.is_dir():
        raise FileNotFoundError(f"{found.name} is missing: set LLMOS_TEST_DATA")
    return found


def opened(folder: Path, draft: Path | None = None, *, guesses: bool = True) -> NativeDriver:
    """Four slots, a thread for every core."""
    driver = NativeDriver()
    spec = ReplicaSpec(
        model_id="mdl_bench",
        folder=str(folder),
        scratch=str(folder),
        weights_digest="sha256:model",
        context_length=CONTEXT,
        num_slots=max(WIDTHS),
        num_threads=0,
        options={"guesses": guesses},
        draft=DraftSpec(draft.name, str(draft), "sha256:draft") if draft else None,
    )
    driver.load(spec, lambda fraction, what: None)
    return driver


def items(width: int, temperature: float, seed: int) -> Iterator[WorkItem]:
    """Stories that begin in different ways."""
    for number in range(width):
        yield WorkItem(
            request_id=f"r{number}",
            tokens=array("i", [1, 403, 407, 261 + (7 * number + seed) % 200]).tobytes(),
            sampling=Sampling(
                temperature=temperature, seed=seed, max_tokens=NUM_TOKENS, ignore_eos=True
            ),
        )


def run(
    driver: NativeDriver, width: int, temperature: float, seed: int
) -> tuple[float, dict[str, list[int]]]:
    """Tokens per second of all streams, and what they said. Raises RuntimeError."""
    for item in items(width, temperature, seed):
        driver.submit(item)
    said: dict[str, list[int]] = {}
    began = time.perf_counter()
    while driver.wait_s() is not None:
        for event in driver.step():
            if isinstance(event, Tokens):
                said.setdefault(event.request_id, []).extend(event.token_ids)
            elif isinstance(event, Failed):
                raise RuntimeError(event.error.message)
    took_s = time.perf_counter() - began
    return sum(map(len, said.values())) / took_s, said


def compare(
    result: harness.Result, target: str, plain: NativeDriver, sides: list[Side], repetitions: int
) -> None:
    """Every side beside the plain one, in turn; one row each. Raises RuntimeError."""
    for width in WIDTHS:
        for temperature in TEMPERATURES:
            ours: dict[str, list[float]] = {side.name: [] for side in sides}
            theirs: dict[str, list[float]] = {side.name: [] for side in sides}
            before = {side.name: side.driver.health() for side in sides}
            for number in range(repetitions):
                for side in sides:
                    peer, expected = run(plain, width, temperature, number)
                    rate, said = run(side.driver, width, temperature, number)
                    if said != expected:
                        raise RuntimeError(f"{side.name} says something else")
                    if number:  # the first one warms up
                        ours[side.name].append(rate)
                        theirs[side.name].append(peer)
            for side in sides:
                now, then = side.driver.health(), before[side.name]
                guessed = now.num_guessed - then.num_guessed
                share = (now.num_accepted - then.num_accepted) / max(1, guessed)
                figure = f"{target}, {side.name}, {width} at {temperature:g}, {share:.0%} right"
                rates = ours[side.name], theirs[side.name]
                result.add(harness.paired(figure, "tokens/s", rates[0], PLAIN, rates[1]))


def made_of(folder: Path, into: Path) -> dict[str, Path]:
    """The drafts, by name."""
    makers: dict[str, Callable[[Path], Path]] = {
        "near": lambda at: drafts.disturbed(folder, at, 0.1),
        "short": lambda at: drafts.cut_short(folder, at, 4),
        "random": lambda at: drafts.random_weights(folder, at),
    }
    return {name: make(into / name) for name, make in makers.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--only", default="", help="small or wide; writes no result")
    arguments = parser.parse_args()
    result = harness.Result("speculation", harness.command("speculation"))
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as scratch:
        small, into = data(), Path(scratch)
        wide = drafts.stretched(small, into / "wide", factor=16, intermediate_size=4096)
        guessers = made_of(small, into)
        for name, folder in (("small", small), ("wide", wide)):
            if arguments.only not in ("", name):
                continue
            plain = opened(folder, guesses=False)
            sides = [Side("lookup", opened(folder))]
            sides += [Side(f"draft {n}", opened(folder, at)) for n, at in guessers.items()]
            compare(result, name, plain, sides, arguments.repetitions + 1)
            for driver in (plain, *(side.driver for side in sides)):
                driver.unload()
    if arguments.only:
        return 0
    print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
