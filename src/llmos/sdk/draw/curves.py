"""What a run logs, as curves: its metrics and samples, from its events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmos.abi.jobs import JobEvent
from llmos.sdk.draw.charts import Line, Point

STEP = "step"
NO_CURVES = frozenset({STEP, "final", "epoch"})
MAX_POINTS = 400
MAX_SAMPLES = 12
FIRST = ("loss", "eval_loss", "accuracy", "f1", "learning_rate")


@dataclass(slots=True)
class RunLog:
    """A run's metrics and samples so far. `after` is the number of the last event it has."""

    after: int = 0
    curves: dict[str, list[Point]] = field(default_factory=dict)
    samples: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def feed(self, events: Iterable[JobEvent]) -> bool:
        """More of its log; whether there was any."""
        is_more = False
        for event in events:
            self.after, is_more = max(self.after, event.number), True
            if event.kind == "metric":
                self._metric(event.value)
            elif event.kind == "output":
                self._sample(event.value)
        return is_more

    def _metric(self, value: Mapping[str, Any]) -> None:
        split = f"{value['split']} " if isinstance(value.get("split"), str) else ""
        for name, number in value.items():
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if name in NO_CURVES or not is_number:
                continue
            points = self.curves.setdefault(split + name, [])
            step = value.get(STEP)
            if not isinstance(step, int | float):
                step = len(points)
            points.append((float(step), float(number)))

    def _sample(self, value: Mapping[str, Any]) -> None:
        step = value.get(STEP)
        shown = {name: part for name, part in value.items() if name != STEP}
        self.samples.append((step if isinstance(step, int) else 0, shown))
        del self.samples[:-MAX_SAMPLES]


def names_of(logs: Iterable[RunLog]) -> list[str]:
    """The names of all curves, those that people look at first before the others."""
    names = {name for log in logs for name in log.curves}

    def place(name: str) -> tuple[int, str]:
        bare = name.rpartition(" ")[2]
        return (FIRST.index(bare) if bare in FIRST else len(FIRST), name)

    return sorted(names, key=place)


def lines_of(name: str, logs: Sequence[tuple[str, RunLog]]) -> list[Line]:
    """One curve of every run, in the order of the runs; runs without it keep their colour."""
    return [Line(run, thinned(log.curves.get(name, []))) for run, log in logs]


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most about `MAX_POINTS`: of each stretch its least and its greatest, so that no spike is
    lost; and the last point."""
    finite = [p for p in points if math.isfinite(p[1])]
    if len(finite) <= MAX_POINTS:
        return finite
    stretch = math.ceil(len(finite) / (MAX_POINTS // 2))
    kept: list[Point] = []
    for begin in range(0, len(finite), stretch):
        part = finite[begin : begin + stretch]
        ends = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept if kept[-1] == finite[-1] else [*kept, finite[-1]]
