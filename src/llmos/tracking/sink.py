"""The seam of trackers: what a run is, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class Run(NamedTuple):
    """A job, as trackers see one. `config` is flat: dotted names."""

    run_id: str
    name: str
    created_ns: int
    config: Mapping[str, Any]


class Point(NamedTuple):
    """Numbers at a step."""

    at_ns: int
    step: int
    values: Mapping[str, float]


class Sink(Protocol):
    """Blocking; called by one thread at a time. What it was told twice is kept once, or does no
    harm: after a crash the last points come again."""

    def begin(self, run: Run) -> None:
        """Also for a run it knows."""
        ...

    def tell(self, run: Run, points: list[Point]) -> None: ...

    def end(self, run: Run, state: str) -> None: ...

    def close(self) -> None: ...


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    made: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            made |= flat(value, f"{prefix}{name}.")
        else:
            made[f"{prefix}{name}"] = value
    return made
