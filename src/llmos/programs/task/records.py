"""Inputs and their outcomes side by side, in order, and what all of them come to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmos.abi.tasks import TaskKind, TaskSpec
from llmos.programs.task.columns import Columns
from llmos.programs.task.rows import Kept, read_kept
from llmos.programs.task.source import Row

ERROR = "error"
OUTPUT = "output"
PER_DECADE = 8
"""Buckets of times, so that a quantile is at most a sixth off."""


class Record(NamedTuple):
    """One input, by its row, and what became of it (None: nothing yet)."""

    row: Row
    kept: Kept | None


Records = Callable[[], Iterator[Record]]
"""All of them, as often as they are wanted."""


def records(rows: Callable[[], Iterator[Row]], done: str, failed: str) -> Iterator[Record]:
    """By the paths of the two gathered streams, both in order."""
    of_done, of_failed = read_kept(done), read_kept(failed)
    good, bad = next(of_done, None), next(of_failed, None)
    for row in rows():
        if good is not None and good.row == row.number:
            yield Record(row, good)
            good = next(of_done, None)
        elif bad is not None and bad.row == row.number:
            yield Record(row, bad)
            bad = next(of_failed, None)
        else:
            yield Record(row, None)


class Layout:
    """How a record is written as columns: those of the input that are kept, then the results.

    A result is called as in the model's answer (`label`, `score`, a schema's properties) or
    `output`; one that an input's column has the name of gets `output_` before it.
    """

    def __init__(self, spec: TaskSpec, columns: Columns) -> None:
        self.kept = columns.all if spec.keep is None else list(spec.keep)
        self._parts = result_parts(spec)
        names = [*self._parts, ERROR] if self._parts else [OUTPUT, ERROR]
        self._names = {name: self._free(name) for name in names}
        self.results = list(self._names.values())

    def _free(self, name: str) -> str:
        while name in self.kept:
            name = f"output_{name}"
        return name

    @property
    def names(self) -> list[str]:
        return [*self.kept, *self.results]

    def values(self, record: Record) -> dict[str, Any]:
        """By name; what a row lacks is None."""
        kept = record.kept
        made: dict[str, Any] = {name: record.row.values.get(name) for name in self.kept}
        made.update(dict.fromkeys(self.results))
        if kept is None:
            return made
        if kept.error is not None:
            made[self._names[ERROR]] = f"{kept.error.code}: {kept.error.message}"
        elif not self._parts:
            made[self._names[OUTPUT]] = kept.value
        elif isinstance(kept.value, dict):
            for part in self._parts:
                made[self._names[part]] = kept.value.get(part)
        return made


def result_parts(spec: TaskSpec) -> list[str]:
    """The fields of a result that become columns; none: the result is one."""
    if spec.schema is not None:
        properties = spec.schema.get("properties")
        return list(properties) if isinstance(properties, dict) else []
    if spec.kind is TaskKind.CLASSIFY:
        return ["label", "score"]
    if spec.kind is TaskKind.QA and spec.work != "generate":
        return ["answer", "score"]
    return []


@dataclass
class Tally:
    """Of all outcomes. Times in ms, `seconds` from the first call's begin to the last outcome."""

    completed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    models: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    times: Counter[int] = field(default_factory=Counter)
    first_failed: Kept | None = None
    begun_at: float = math.inf
    ended_at: float = -math.inf

    def add(self, kept: Kept) -> None:
        self.ended_at = max(self.ended_at, kept.at)
        self.begun_at = min(self.begun_at, kept.at - kept.ms / 1000)
        self.prompt_tokens += kept.prompt_tokens
        self.completion_tokens += kept.completion_tokens
        if kept.cost is not None:
            self.cost = (self.cost or 0.0) + kept.cost
        if kept.error is not None:
            self.failed += 1
            self.first_failed = self.first_failed or kept
            self.errors[kept.error.code] += 1
            return
        self.completed += 1
        self.models[kept.model] += 1
        self.times[bucket_of(kept.ms)] += 1
        if isinstance(kept.value, dict) and isinstance(kept.value.get("label"), str):
            self.labels[kept.value["label"]] += 1

    def _first_error(self) -> dict[str, Any] | None:
        kept = self.first_failed
        if kept is None or kept.error is None:
            return None
        return {"row": kept.row, "code": kept.error.code, "message": kept.error.message}

    @property
    def seconds(self) -> float:
        return max(0.0, self.ended_at - self.begun_at) if self.completed + self.failed else 0.0

    def quantile_ms(self, share: float) -> float:
        """The upper bound of the bucket in which it lies."""
        left = share * self.completed
        for bucket in sorted(self.times):
            left -= self.times[bucket]
            if left <= 0:
                return upper_ms(bucket)
        return 0.0

    def to_dict(self) -> dict[str, Any]:
        """For the job's outputs."""
        total, seconds = self.completed + self.failed, self.seconds
        return {
            "counts": {"total": total, "completed": self.completed, "failed": self.failed},
            "usage": {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
            },
            "models": dict(self.models),
            "labels": dict(self.labels.most_common(100)),
            "errors": dict(self.errors),
            "first_error": self._first_error(),
            "seconds": round(seconds, 3),
            "rows_per_s": round(total / seconds, 3) if seconds else None,
            "ms": {"p50": self.quantile_ms(0.5), "p95": self.quantile_ms(0.95)},
            "cost": self.cost,
        }


def bucket_of(ms: float) -> int:
    """Of a logarithmic scale, from a microsecond up."""
    return math.ceil(PER_DECADE * math.log10(max(ms, 1e-3)))


def upper_ms(bucket: int) -> float:
    """Where a bucket ends, rounded to three digits."""
    return float(f"{10 ** (bucket / PER_DECADE):.3g}")


def is_expired(tally: Tally, spec: TaskSpec) -> bool:
    """Whether inputs were left when the task's time was over."""
    timed: Mapping[str, int] = tally.errors
    return spec.policy.expires_at is not None and bool(timed.get("deadline_exceeded"))
