"""Reads the logs of runs from the store, and tells the sinks what is new."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.jobs import ENDED, JobEvent, JobFilter, JobRecord, JobStore
from llmos.errors import LLMOSError, OffsetLost
from llmos.tracking.config import TrackingConfig
from llmos.tracking.sink import Point, Run, Sink, flat

log = logging.getLogger(__name__)

PAGE = 1000
KEPT = 1000
"""Ended runs that are remembered, so that none is told of again."""

FILE = "told.json"


class Told(msgspec.Struct):
    """How far a run was told of. `since_ns`: of no older runs."""

    since_ns: int
    after: dict[str, int] = {}
    ended: list[str] = []


class Tracker:
    """One per server. A sink that fails is logged and left out of that round; a run is told of as
    far as it was kept, again after a crash."""

    def __init__(
        self, store: JobStore, folder: Path, sinks: Mapping[str, Sink], config: TrackingConfig
    ) -> None:
        self._store = store
        self._path = folder / FILE
        self._sinks = dict(sinks)
        self._config = config
        self._begun: set[str] = set()
        self._told = self._read()

    async def run(self) -> None:
        """Until it is cancelled; what is there is told before it ends."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(self._config.interval_s)
        finally:
            await asyncio.to_thread(self._close)

    async def look(self) -> None:
        """Once over all runs that have not ended for us. Never raises for a sink's failure."""
        try:
            jobs = await self._store.page(JobFilter(programs=self._config.programs, limit=PAGE))
        except LLMOSError as error:
            log.warning("runs are not tracked now: %s", error)
            return
        ended = set(self._told.ended)
        for job in reversed(jobs):
            if job.created_ns >= self._told.since_ns and job.job_id not in ended:
                await self._follow(job)

    async def _follow(self, job: JobRecord) -> None:
        run, after = run_of(job), self._told.after.get(job.job_id, 0)
        while True:
            try:
                events = await self._store.events(job.job_id, after, PAGE, ["metric"])
            except OffsetLost:
                after += PAGE
                continue
            if events or job.state in ENDED:
                await asyncio.to_thread(self._pass_on, run, points_of(events))
            if not events:
                break
            after = self._told.after[job.job_id] = events[-1].number
        if job.state in ENDED:
            await asyncio.to_thread(self._end, run, job.state)
        await asyncio.to_thread(self._write)

    def _pass_on(self, run: Run, points: list[Point]) -> None:
        is_new = run.run_id not in self._begun
        self._begun.add(run.run_id)
        if is_new:
            self._tell(lambda sink: sink.begin(run))
        if points:
            self._tell(lambda sink: sink.tell(run, points))

    def _end(self, run: Run, state: str) -> None:
        self._tell(lambda sink: sink.end(run, state))
        self._begun.discard(run.run_id)
        self._told.after.pop(run.run_id, None)
        self._told.ended = [*self._told.ended, run.run_id][-KEPT:]

    def _close(self) -> None:
        self._tell(lambda sink: sink.close())

    def _tell(self, what: Callable[[Sink], None]) -> None:
        """Each sink; what one raises is logged, and the others are told all the same."""
        for name, sink in self._sinks.items():
            try:
                what(sink)
            except Exception:
                log.exception("the tracker %s failed", name)

    def _read(self) -> Told:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Told)
        except (OSError, msgspec.DecodeError):
            return Told(time.time_ns())

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.json.encode(self._told))
            fresh.replace(self._path)
        except OSError as error:
            log.warning("how far runs were told of was not kept: %s", error)


def run_of(job: JobRecord) -> Run:
    """A job as a run: its recipe, flat, and its files by their digests where it told them."""
    inputs: Mapping[str, Any] = job.spec.inputs
    config = flat({name: value for name, value in inputs.items() if isinstance(value, Mapping)})
    config |= {name: v for name, v in inputs.items() if not isinstance(v, Mapping)}
    config |= {f"files.{name}": file_id for name, file_id in job.spec.files.items()}
    config |= {f"models.{name}": ref for name, ref in job.spec.models.items()}
    return Run(job.job_id, job.spec.name or job.spec.program, job.created_ns, config)


def points_of(events: list[JobEvent]) -> list[Point]:
    """Their finite numbers, named by the split they are of."""
    made = []
    for event in events:
        value = dict(event.value)
        step, split = value.pop("step", 0), value.pop("split", "train")
        prefix = f"final/{split}" if value.pop("final", False) else str(split)
        numbers = {
            f"{prefix}/{name}": float(number)
            for name, number in value.items()
            if isinstance(number, int | float)
            and not isinstance(number, bool)
            and math.isfinite(number)
        }
        if numbers and isinstance(step, int):
            made.append(Point(event.at_ns, step, numbers))
    return made
