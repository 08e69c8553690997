"""A program's context without a kernel: what it was told is kept, and it may be told to yield."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmos.abi.program import Answer, Generate, Yielded
from llmos.programs.train.program import TrainProgram


class FakeContext:
    """Behind `abi.Context`. It asks to yield when step `yield_at` is told of."""

    def __init__(
        self,
        folder: Path,
        recipe: Mapping[str, Any],
        files: Mapping[str, Path],
        models: Mapping[str, Path] | None = None,
        attempt: int = 1,
        resumed_from: str | None = None,
        yield_at: int | None = None,
    ) -> None:
        self.job_id = "job_test"
        self.attempt = attempt
        self.inputs = {"recipe": dict(recipe)}
        self.files = {name: str(path) for name, path in files.items()}
        self.models = {name: str(path) for name, path in (models or {}).items()}
        self.home = folder
        self.scratch = str(folder / f"work-{attempt}")
        Path(self.scratch).mkdir(parents=True)
        self.resumed_from = resumed_from
        self.done_keys: frozenset[tuple[str, str]] = frozenset()
        self.yield_at = yield_at
        self.should_stop = False
        self.step = 0
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.checkpoints: list[str] = []
        self.results: dict[str, dict[int, bytes]] = {}
        self.registered: Path | None = None

    @property
    def should_yield(self) -> bool:
        return self.yield_at is not None and self.step >= self.yield_at

    def emit(self, kind: str, value: Mapping[str, Any]) -> None:
        self.events.append((kind, dict(value)))
        self.step = max(self.step, int(value.get("step", 0)))

    def progress(
        self,
        done: float,
        total: float = 0.0,
        unit: str = "",
        what: str = "",
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self.step = max(self.step, int(done))

    def result(self, stream: str, key: str, order: int, body: bytes) -> None:
        self.results.setdefault(stream, {})[order] = body

    def gather(self, stream: str) -> str:
        raise NotImplementedError

    def call(self, request: Generate) -> Answer:
        raise NotImplementedError

    def calls(
        self, requests: Iterable[tuple[Any, Generate]], window: int
    ) -> Iterator[tuple[Any, Answer]]:
        raise NotImplementedError

    def checkpoint(self, path: str) -> None:
        kept = self.home / f"kept-{self.attempt}-{len(self.checkpoints)}.pt"
        shutil.move(path, kept)
        self.checkpoints.append(str(kept))

    def register(self, folder: str, name: str) -> str:
        self.registered = self.home / "registered"
        if self.registered.exists():
            shutil.rmtree(self.registered)
        shutil.copytree(folder, self.registered)
        return f"{name}:1"

    def metrics(self, **wanted: Any) -> list[dict[str, Any]]:
        """Metrics told so far that have these fields."""
        return [
            value
            for kind, value in self.events
            if kind == "metric" and all(value.get(k) == v for k, v in wanted.items())
        ]


def run(
    folder: Path,
    recipe: Mapping[str, Any],
    files: Mapping[str, Path],
    models: Mapping[str, Path] | None = None,
    yields: Iterable[int] = (),
) -> tuple[dict[str, Any], FakeContext]:
    """A whole run, put off and gone on with at the steps of `yields`."""
    resumed_from = None
    for attempt, yield_at in enumerate([*yields, None], 1):
        context = FakeContext(
            folder, recipe, files, models, attempt, resumed_from, yield_at=yield_at
        )
        try:
            return dict(TrainProgram().run(context)), context
        except Yielded:
            resumed_from = context.checkpoints[-1]
    raise AssertionError("the last attempt yielded, although it was not asked to")
