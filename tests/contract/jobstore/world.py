"""A store under test, in a home of its own, that can be killed and opened again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select

from llmos.abi.blob import BlobRef
from llmos.abi.ids import new_id
from llmos.abi.jobs import Attempt, JobRecord, JobSpec, JobState, ResultRow
from llmos.abi.principal import Principal
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database, open_database
from llmos.storage.home import Home, open_home
from llmos.storage.jobs import SqlJobStore, close_job_store, open_job_store
from llmos.storage.references import JOBS, references_of
from llmos.storage.tables import files, jobs

ALICE = Principal("prn_alice", "ten_a", "爱丽丝 🐼")
BOB = Principal("prn_bob", "ten_b", "bob")
NOW = 1_700_000_000 * 10**9
"""A clock of the tests' own, UTC ns, in the past of the machine's."""
SECOND = 10**9


async def digests(store: SqlJobStore) -> set[str]:
    """What a sweep leaves alone because of this store, by the rule that sweeps go by."""
    found = await store.database.read(lambda connection: references_of(connection, JOBS))
    return set().union(*found.values())


def job(principal: Principal = ALICE, created_ns: int = NOW, **spec: Any) -> JobRecord:
    """A job on its way into a store."""
    spec.setdefault("program", "count")
    return JobRecord(
        job_id=new_id("job"),
        principal=principal,
        spec=JobSpec(**spec),
        state=JobState.PENDING,
        created_ns=created_ns,
        epoch=0,
    )


class World:
    """One home and what is open in it. `url`: where jobs are kept; empty for SQLite."""

    def __init__(self, folder: Path, url: str, **limits: Any) -> None:
        self._folder = folder
        self.config = StorageConfig(min_free_bytes=0, jobs_url=url, **limits)
        self.home: Home
        self.database: Database
        self.blobs: Blobs
        self.store: SqlJobStore

    async def open(self) -> SqlJobStore:
        """A kernel's start."""
        self._loop = asyncio.get_running_loop()
        self.home = open_home(self._folder)
        self.database = open_database(self.home.db, self.config)
        self.blobs = Blobs(self.home, self.config)
        self.store = await open_job_store(self.home, self.database, self.blobs, self.config)
        return self.store

    async def close(self) -> None:
        await close_job_store(self.store)
        self.database.close()
        self.home.close()

    async def restart(self) -> SqlJobStore:
        """The server ends, whatever it was doing, and another begins."""
        await self.close()
        return await self.open()

    async def running(self, record: JobRecord | None = None) -> Attempt:
        """A job that runs, of the one given or a new one."""
        record = record or (await self.store.add([job()]))[0]
        found = await self.store.claim(1000, NOW)
        others = [each.job_id for each in found if each.job_id != record.job_id]
        await self.store.release(others)
        attempt = await self.store.begin(record.job_id, NOW)
        assert attempt is not None
        return attempt

    async def end(self, attempt: Attempt, state: JobState = JobState.SUCCEEDED) -> Any:
        return await self.store.finish(attempt, state, "as the test wants it")

    async def add_file(self, text: str, principal: Principal = ALICE) -> str:
        """A file of the principal's, with its blob."""
        file_id = new_id("file")
        source = self.home.scratch / file_id
        source.write_text(text)
        with self.blobs.hold() as hold:
            ref = self.blobs.adopt(source, hold)
            row = {
                "file_id": file_id,
                "tenant_id": principal.tenant_id,
                "principal_id": principal.principal_id,
                "filename": "数据.jsonl",
                "purpose": "batch",
                "digest": ref.digest,
                "size_bytes": ref.size_bytes,
                "created_ns": NOW,
                "epoch": 1,
            }
            await self.store.database.write(lambda c: c.execute(insert(files).values(**row)))
        return file_id

    async def read_file(self, file_id: str) -> tuple[dict[str, Any], bytes]:
        """A file's row and bytes."""

        def read(connection: Connection) -> dict[str, Any]:
            row = connection.execute(select(files).where(files.c.file_id == file_id)).one()
            return dict(row._mapping)

        row = await self.store.database.read(read)
        return row, self.blobs.path(row["digest"]).read_bytes()

    def put_now(self, attempt: Attempt, rows: list[ResultRow]) -> None:
        """Put results from a thread that is not the loop's."""
        loop = self._loop
        asyncio.run_coroutine_threadsafe(self.store.put_results(attempt, rows), loop).result(30)

    async def recount(self) -> dict[JobState, int]:
        """As `count`, by counting."""
        query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        rows = await self.store.database.read(lambda c: c.execute(query).all())
        return {JobState(state): num for state, num in rows}


Scenario = Callable[[World], Awaitable[None]]


def play(make: Callable[..., World], scenario: Scenario, **limits: Any) -> None:
    """Run a scenario in a world; afterwards the store's counts must be right."""

    async def main() -> None:
        world = make(**limits)
        await world.open()
        try:
            async with asyncio.timeout(60):
                await scenario(world)
                assert await world.store.count() == await world.recount()
        finally:
            await world.close()

    asyncio.run(main())


def checkpoint_ref(number: int = 1) -> BlobRef:
    """A reference to bytes that need not exist."""
    return BlobRef(f"sha256:{number:064x}", 10, f"/blobs/{number}")


def after(seconds: float) -> int:
    """So long after NOW."""
    return NOW + int(seconds * SECOND)
