"""Ours and the peers that can run, loaded alike and run in turn; who cannot, and why."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks import models
from benchmarks.engine import ours, peer, runs
from benchmarks.engine.environments import Absent, Peer
from benchmarks.engine.ours import Load
from benchmarks.engine.peers.protocol import Request
from benchmarks.harness import Row, paired, round4, single

OURS = "ours"
PAUSE_S = 0.3
"""Before each run: whoever ran last lets its threads rest."""
LEAST_TOKENS = 4
"""Of a warm-up: memory is taken and kernels are chosen by then."""

Tokens = list[list[float]]
Read = Callable[[Tokens], dict[str, float]]
"""The figures of one run."""


@dataclass
class Side:
    """One engine that runs. `kept`: by figure, a value per repetition."""

    title: str
    run: Callable[[list[Request]], Tokens]
    max_width: int
    kept: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Prompts:
    """Random prompts, never the same twice: no cache of prefixes helps anyone."""

    vocab_size: int
    num_drawn: int = 0

    def draw(self, length: int) -> list[int]:
        self.num_drawn += 1
        return models.tokens(length, 1_000_000 + self.num_drawn, self.vocab_size)

    def requests(self, width: int, length: int, num_new: int) -> list[Request]:
        return [Request(self.draw(length), num_new) for _ in range(width)]


Report = Callable[[str], None]


@contextlib.contextmanager
def opened(load: Load, peers: Sequence[Peer], report: Report) -> Iterator[list[Side]]:
    """Ours first. Who is absent is reported."""
    with contextlib.ExitStack() as stack:
        sides = []
        try:
            made = stack.enter_context(ours.start(load))
            sides.append(Side(OURS, made.run, load.num_slots))
        except Absent as error:
            report(f"{load.model} {load.precision}: ours is absent: {error}")
        setup = peer.setup(
            load.model, load.precision, load.num_threads, load.num_slots, load.context_tokens
        )
        for wanted in peers:
            began = time.perf_counter()
            try:
                running = stack.enter_context(peer.Running(wanted, setup))
            except Absent as error:
                report(f"{load.model} {load.precision}: {wanted.title} is absent: {error}")
                continue
            took_s = time.perf_counter() - began
            version = running.facts["version"]
            print(f"-- {wanted.title} {version}: ready in {took_s:.0f} s", flush=True)
            sides.append(Side(wanted.title, running.run, wanted.max_width))
        yield sides


def in_turn(
    sides: list[Side],
    *,
    width: int,
    repetitions: int,
    draw: Callable[[int], list[Request]],
    read: Read,
    report: Report,
) -> None:
    """Warm up, then every side once per repetition; a peer that breaks is left out from there.

    `draw` is given the number of tokens to generate, or 0 for as many as are measured.
    """
    for repetition in range(repetitions + 1):
        is_warm_up = repetition == 0
        for side in list(sides):
            if width > side.max_width:
                continue
            requests = draw(LEAST_TOKENS if is_warm_up else 0)
            time.sleep(PAUSE_S)
            try:
                token_s = side.run(requests)
                runs.check(token_s, [request.num_new for request in requests])
                figures = {} if is_warm_up else read(token_s)
            except (Absent, ValueError) as error:
                report(f"{side.title} is left out at {width} streams: {error}")
                sides.remove(side)
                continue
            for figure, value in figures.items():
                side.kept.setdefault(figure, []).append(value)


def rows(sides: Sequence[Side], figure: str, unit: str, lower_is_better: bool) -> list[Row]:
    """Ours beside each peer, the best peer marked and first; alone where ours or peers lack."""
    having = [side for side in sides if figure in side.kept]
    mine = next((side for side in having if side.title == OURS), None)
    peers = [side for side in having if side is not mine]
    peers.sort(key=lambda side: middle(side.kept[figure]), reverse=not lower_is_better)
    if mine is None:
        return [single(f"{figure}, {side.title} alone", unit, side.kept[figure]) for side in peers]
    values = mine.kept[figure]
    if not peers:
        return [single(figure, unit, values)]
    found = []
    for index, side in enumerate(peers):
        theirs = side.kept[figure]
        count = min(len(values), len(theirs))
        title = side.title + (" (best)" if index == 0 else "")
        found.append(paired(figure, unit, values[:count], title, theirs[:count]))
    return found


def middle(values: Sequence[float]) -> float:
    """The median, in the figures shown."""
    return round4(statistics.median(values))
