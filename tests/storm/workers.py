"""The store's other side: a small kernel that claims, begins, reports, and writes all of it down.

It does what the real one may do at worst: reports twice, reports late, gives back, fails, and
reports on attempts of servers that are dead.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.abi.jobs import (
    Attempt,
    Ended,
    JobProgress,
    JobRecord,
    JobState,
    NewEvent,
    ResultRow,
)
from llmos.errors import ErrorInfo
from tests.storm.patrons import key_names, seen_of, told_jobs

if TYPE_CHECKING:
    from tests.storm.work import World

WINDOW = 24
OUTPUT = "output"
FAILED = ErrorInfo("program_failed", "as it was told to")


class Crew:
    """All workers of one life. `scratch` is where their checkpoints are written."""

    def __init__(self, world: World, scratch: Path) -> None:
        self._world = world
        self._scratch = scratch
        self._random = world.random
        self._tasks: set[asyncio.Task[None]] = set()
        self._past = {
            job_id: Attempt(job_id, number, epoch)
            for job_id, number, epoch in world.memory.attempts
        }
        """The last attempt of each job that was begun: when the next has begun, it is a ghost."""

    async def work(self) -> None:
        """Claims a window of jobs and runs them; ends only by being cancelled or by a failure."""
        await self._haunt()
        store = self._world.store
        while True:
            for task in [task for task in self._tasks if task.done()]:
                self._tasks.discard(task)
                task.result()
            room = WINDOW - len(self._tasks)
            now_ns = time.time_ns()
            jobs = []
            if room:
                jobs = await self._world.ask(
                    "claim",
                    lambda room=room, now_ns=now_ns: store.claim(room, now_ns),  # type: ignore[misc]
                    told_jobs,
                    now_ns=now_ns,
                    epoch=store.epoch,
                )
            for job in jobs or ():
                self._tasks.add(asyncio.create_task(self._run(job)))
            if not jobs:
                await store.wait_for_work(0.01)

    async def _haunt(self) -> None:
        """Reports of workers of a dead server come in late."""
        for job_id, number, epoch in self._world.memory.attempts[-6:]:
            attempt = Attempt(job_id, number, epoch)
            if epoch < self._world.store.epoch:
                await self._put(attempt, ["late"])
                await self._finish(attempt, JobState.SUCCEEDED)

    async def _run(self, job: JobRecord) -> None:
        store, roll = self._world.store, self._random.random()
        if roll < 0.02:
            await self._world.ask(
                "release", lambda: store.release([job.job_id]), lambda _: {}, keys=[job.job_id]
            )
            return
        attempt = await self._world.ask(
            "begin",
            lambda: store.begin(job.job_id, time.time_ns()),
            lambda made: {"taken": made is not None, "attempt": made.number if made else 0},
            job_id=job.job_id,
            epoch=store.epoch,
        )
        if attempt is None:
            return
        ghost, self._past[job.job_id] = self._past.get(job.job_id), attempt
        if ghost is not None and self._random.random() < 0.5:
            await self._report_late(ghost)
        await self._read_inputs(job)
        await self._work(job, attempt)

    async def _read_inputs(self, job: JobRecord) -> None:
        for file_id in job.spec.files.values():
            blob = await self._world.files.blob(file_id)
            assert os.stat(blob.path or "").st_size == blob.size_bytes  # noqa: PTH116

    async def _work(self, job: JobRecord, attempt: Attempt) -> None:
        random = self._random
        keys = key_names(int(job.spec.inputs.get("keys", 0)))
        done = {key for stream, key in await self._world.store.result_keys(job.job_id)}
        if random.random() < 0.9:
            keys = [key for key in keys if key not in done]
        if len(keys) > 1 and random.random() < 0.3:
            half = keys[: len(keys) // 2]
            await self._put(attempt, half)
            if random.random() < 0.4:
                await self._tell(attempt)
                await self._requeue(attempt)
                return
        await self._put(attempt, keys)
        if random.random() < 0.1:
            await self._tell(attempt)
        roll = random.random()
        told = job.job_id in self._world.told or job.cancel_reason is not None
        if told:
            await self._finish(attempt, JobState.CANCELLED)
        elif roll < 0.12:
            await self._requeue(attempt)
        elif roll < 0.17:
            await self._finish(attempt, JobState.FAILED)
        else:
            await self._finish(attempt, JobState.SUCCEEDED, has_results=bool(keys or done))
        if random.random() < 0.1:
            await self._report_late(attempt)

    async def _report_late(self, attempt: Attempt) -> None:
        if self._random.random() < 0.5:
            await self._put(attempt, ["late"])
        else:
            await self._finish(attempt, JobState.SUCCEEDED)

    async def _report(self, op: str, attempt: Attempt, work: Any, **about: Any) -> Any:
        return await self._world.ask(
            op,
            work,
            _told_report,
            job_id=attempt.job_id,
            attempt=attempt.number,
            epoch=attempt.epoch,
            **about,
        )

    async def _put(self, attempt: Attempt, keys: list[str]) -> None:
        if not keys:
            return
        rows = [
            ResultRow(
                OUTPUT,
                key,
                int(key[1:]) if key[1:].isdecimal() else 0,
                b'{"key":"%s#%d"}' % (key.encode(), attempt.number),
            )
            for key in keys
        ]
        await self._report(
            "put", attempt, lambda: self._world.store.put_results(attempt, rows), keys=keys
        )

    async def _tell(self, attempt: Attempt) -> None:
        store = self._world.store
        progress = JobProgress(1.0, 2.0, at_ns=time.time_ns())
        await self._report("progress", attempt, lambda: store.progress(attempt, progress))
        events = [NewEvent(time.time_ns(), "log", {"line": i}) for i in range(3)]
        await self._report("append", attempt, lambda: store.append(attempt, events))
        if self._world.order.files:
            path = self._scratch / f"checkpoint-{uuid.uuid4().hex}"
            path.write_bytes(path.name.encode() * 20)
            blob = await self._world.files.adopt(str(path))
            await self._report("checkpoint", attempt, lambda: store.checkpoint(attempt, blob))

    async def _requeue(self, attempt: Attempt) -> None:
        died = self._random.random() < 0.5
        due_ns = time.time_ns() + self._random.choice((0, 5_000_000, 60_000_000))
        error = None if died else FAILED
        await self._report(
            "requeue",
            attempt,
            lambda: self._world.store.requeue(attempt, due_ns, "again", died=died, error=error),
            died=died,
            now_ns=due_ns,
        )

    async def _finish(self, attempt: Attempt, state: JobState, *, has_results: bool = True) -> None:
        succeeded = state == JobState.SUCCEEDED
        await self._report(
            "finish",
            attempt,
            lambda: self._world.store.finish(
                attempt,
                state,
                "the end",
                outputs={"attempt": attempt.number} if succeeded else None,
                error=FAILED if state == JobState.FAILED else None,
                exports={OUTPUT: f"out of {attempt.job_id}"} if succeeded and has_results else None,
            ),
            state=state.value,
        )


def _told_report(made: Any) -> dict[str, Any]:
    """Whether it was taken, and the jobs it tells about."""
    told: dict[str, Any] = {"taken": made is not None and made is not False}
    if isinstance(made, Ended):
        told["seen"] = [seen_of(job) for job in [made.job, *made.unblocked, *made.cascaded]]
    elif isinstance(made, JobRecord):
        told["seen"] = [seen_of(made)]
    return told
