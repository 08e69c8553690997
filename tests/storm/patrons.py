"""Clients of the store: they submit, look, cancel, retry, upload, and write down what they hear."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from llmos.abi.files import FileRecord
from llmos.abi.ids import new_id
from llmos.abi.jobs import Idempotency, JobFilter, JobRecord, JobSpec, JobState
from llmos.abi.principal import Principal, ServiceClass
from tests.storm.history import Seen, SeenFile
from tests.storm.snapshot import ENDED_STATES, outcome_of

if TYPE_CHECKING:
    from tests.storm.work import World

OWNER = Principal("prn_storm", "default", "storm")
NEWEST = 400
"""Of these many newest jobs, one is taken to do something to."""


def seen_of(job: JobRecord) -> Seen:
    """As it is written down."""
    error = None if job.error is None else {"code": job.error.code, "message": job.error.message}
    return Seen(
        job_id=job.job_id,
        state=job.state.value,
        tag=job.spec.name,
        epoch=job.epoch,
        outcome=outcome_of(job.outputs, error) if job.state in ENDED_STATES else "",
        num_deaths=job.num_deaths,
        num_unmet=job.num_unmet,
        due_ns=job.due_ns,
        rank=2 - int(job.spec.service_class),
        is_told=job.cancel_reason is not None and job.state not in ENDED_STATES,
        is_child=job.spec.parent_id is not None,
    )


def told_jobs(jobs: list[JobRecord]) -> dict[str, Any]:
    return {"seen": [seen_of(job) for job in jobs]}


def told_job(job: JobRecord) -> dict[str, Any]:
    return told_jobs([job])


def key_names(num: int) -> list[str]:
    return [f"r{i}" for i in range(num)]


class Patron:
    """One client, one thing at a time."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._name = f"{world.order.life}.{number}"
        self._count = 0
        self._random = world.random
        self._acts: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._submit, 60),
            (self._submit_group, 10),
            (self._submit_after, 10),
            (self._submit_child, 5),
            (self._submit_reader, 4 if world.order.files else 0),
            (self._cancel, 5),
            (self._suspend, 3),
            (self._retry, 6),
            (self._show, 10),
            (self._list, 2),
            (self._remove, 1),
            (self._upload, 5 if world.order.files else 0),
            (self._read, 3 if world.order.files else 0),
            (self._remove_file, 1 if world.order.files else 0),
        ]

    async def live(self) -> None:
        given = self._world.order.weights
        chosen = [(getattr(self, name), weight) for name, weight in given.items()]
        acts, weights = zip(*(chosen or self._acts), strict=True)
        await self.ask_again()
        while True:
            await self._world.has_room.wait()
            (act,) = self._random.choices(acts, weights)
            await act()
            await asyncio.sleep(0)

    async def ask_again(self) -> None:
        """With the keys whose answers never came."""
        memory = self._world.memory
        while memory.unanswered:
            asked = memory.unanswered.pop()
            if asked.op == "submit":
                await self._add(asked.tags or [asked.tag], asked.key, len(asked.keys))
            else:
                await self._send(asked.tag, asked.key)

    # jobs

    async def _add(
        self, tags: list[str], key: str = "", num_keys: int = 0, chain: bool = False, **spec: Any
    ) -> list[JobRecord] | None:
        now_ns = time.time_ns()
        jobs: list[JobRecord] = []
        for tag in tags:
            needs = [job.job_id for job in jobs] if chain else []
            made = JobSpec(
                "drill",
                {"keys": num_keys},
                name=tag,
                exports_expire_s=3600.0,
                **{"needs": needs, "service_class": ServiceClass(len(tag) % 3), **spec},
            )
            jobs.append(JobRecord(new_id("job"), OWNER, made, JobState.PENDING, now_ns, 0))
        idempotency = Idempotency(key, "sha256:" + "0" * 64) if key else None
        about: dict[str, Any] = {"tag": tags[0]} if len(tags) == 1 else {"tags": tags}
        added: list[JobRecord] | None = await self._world.ask(
            "submit",
            lambda: self._world.store.add(jobs, idempotency),
            told_jobs,
            key=key,
            keys=key_names(num_keys),
            plain=not spec,
            **about,
        )
        if added:
            self._world.memory.job_ids += [job.job_id for job in added]
            del self._world.memory.job_ids[: -2 * NEWEST]
        return added

    def _tag(self) -> str:
        self._count += 1
        return f"{self._name}.{self._count}"

    def _some(self) -> str | None:
        ids = self._world.memory.job_ids[-NEWEST:]
        return self._random.choice(ids) if ids else None

    async def _submit(self) -> None:
        tag = self._tag()
        key = f"key {tag}" if self._random.random() < 0.4 else ""
        num_keys = self._random.choice((0, 0, 1, 3, 8))
        await self._add([tag], key, num_keys)
        if key and self._random.random() < 0.3:
            await self._add([tag], key, num_keys)

    async def _submit_group(self) -> None:
        tag = self._tag()
        key = f"key {tag}" if self._random.random() < 0.5 else ""
        await self._add([f"{tag}/{i}" for i in range(4)], key, chain=True)

    async def _submit_after(self) -> None:
        if (job_id := self._some()) is not None:
            await self._add([self._tag()], needs=[job_id])

    async def _submit_child(self) -> None:
        if (job_id := self._some()) is not None:
            await self._add([self._tag()], parent_id=job_id)

    async def _submit_reader(self) -> None:
        if self._world.memory.files:
            file_id, _ = self._random.choice(self._world.memory.files)
            await self._add([self._tag()], files={"input": file_id})

    async def _cancel(self) -> None:
        if (job_id := self._some()) is not None:
            store = self._world.store
            done = await self._world.ask(
                "cancel", lambda: store.cancel(job_id, "changed my mind"), told_jobs, job_id=job_id
            )
            for job in done or ():
                if job.state == JobState.RUNNING:
                    self._world.told.add(job.job_id)

    async def _suspend(self) -> None:
        if (job_id := self._some()) is None:
            return
        store = self._world.store
        await self._world.ask(
            "suspend", lambda: store.suspend(job_id, "wait"), told_job, job_id=job_id
        )
        await asyncio.sleep(self._random.uniform(0, 0.05))
        await self._world.ask(
            "resume", lambda: store.resume(job_id, "go on"), told_job, job_id=job_id
        )

    async def _retry(self) -> None:
        failed = self._world.memory.failed
        if failed:
            job_id = failed.pop(self._random.randrange(len(failed)))
            store = self._world.store
            await self._world.ask(
                "retry", lambda: store.retry(job_id, "again"), told_job, job_id=job_id
            )

    async def _show(self) -> None:
        if (job_id := self._some()) is not None:
            store = self._world.store
            await self._world.ask("show", lambda: store.get(job_id), told_job, job_id=job_id)

    async def _list(self) -> None:
        store = self._world.store
        found = await self._world.ask("list", lambda: store.page(JobFilter(limit=50)), told_jobs)
        failed = [job.job_id for job in found or () if job.state == JobState.FAILED]
        self._world.memory.failed = [*self._world.memory.failed, *failed][-50:]

    async def _remove(self) -> None:
        if (job_id := self._some()) is not None:
            store = self._world.store
            await self._world.ask("remove", lambda: store.remove(job_id), told_job, job_id=job_id)

    # files

    async def _upload(self) -> None:
        tag = self._tag()
        key = f"key {tag}" if self._random.random() < 0.5 else ""
        await self._send(tag, key)
        if key and self._random.random() < 0.3:
            await self._send(tag, key)

    async def _send(self, tag: str, key: str) -> None:
        """Its bytes follow from its tag, so that whoever asks again sends the same ones."""
        data = hashlib.sha256(tag.encode()).digest() * (1 + len(tag) * 7 % 600)
        upload_id = new_id("upl")
        record = FileRecord(
            new_id("file"),
            OWNER.tenant_id,
            OWNER.principal_id,
            tag,
            "user_data",
            "",
            0,
            time.time_ns(),
        )
        idempotency = Idempotency(key, "sha256:" + "0" * 64) if key else None

        async def add() -> FileRecord:
            await self._world.uploads.write(upload_id, "file", _chunks(data))
            try:
                return await self._world.files.add(upload_id, record, idempotency)
            finally:
                await self._world.uploads.discard(upload_id)

        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        made = await self._world.ask(
            "file_add", add, _told_file, tag=tag, key=key, digest=digest, plain=True
        )
        if made is not None:
            self._world.memory.files = [
                *self._world.memory.files[-100:],
                (made.file_id, made.filename),
            ]

    async def _read(self) -> None:
        if not self._world.memory.files:
            return
        file_id, tag = self._random.choice(self._world.memory.files)

        async def read() -> SeenFile:
            blob = await self._world.files.blob(file_id)
            return SeenFile(file_id, _digest_of(blob.path or ""), tag)

        await self._world.ask("file_read", read, lambda seen: {"files": [seen]}, file_id=file_id)

    async def _remove_file(self) -> None:
        files = self._world.memory.files
        if files:
            file_id, _ = files.pop(self._random.randrange(len(files)))
            await self._world.ask(
                "file_remove",
                lambda: self._world.files.remove(file_id),
                _told_file,
                file_id=file_id,
            )


def _told_file(record: FileRecord) -> dict[str, Any]:
    return {"files": [SeenFile(record.file_id, record.digest, record.filename)]}


def _digest_of(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data
