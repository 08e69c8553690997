"""Several kernels: on one home one is refused, on one PostgreSQL one leads and others stand by."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llmos.abi.jobs import Idempotency, JobRecord, JobSpec, JobState, Schedule
from llmos.errors import ConfigError, HomeLocked, StorageError
from llmos.storage.home import open_home
from llmos.storage.jobs import SqlJobStore
from llmos.storage.jobs.postgres import parse_url
from tests.contract.jobstore.conftest import fresh_home
from tests.contract.jobstore.world import ALICE, NOW, World, after, job
from tests.postgres import Postgres


def test_a_second_kernel_on_the_same_home_is_refused(tmp_path: Path, migrated: Path) -> None:
    async def main() -> None:
        world = World(fresh_home(tmp_path / "home", migrated), "")
        await world.open()
        with pytest.raises(HomeLocked):
            open_home(tmp_path / "home")
        await world.close()

    asyncio.run(main())


@pytest.mark.parametrize("url", ["mysql://x/y", "postgres", "sqlite:///x", "http://[::1"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="jobs_url"):
        parse_url(url)


def test_nobody_there_is_a_storage_error_without_the_password(
    tmp_path: Path, migrated: Path
) -> None:
    async def main() -> None:
        home = fresh_home(tmp_path / "home", migrated)
        world = World(home, f"postgresql://me:s3cret@/x?host={tmp_path}")
        with pytest.raises(StorageError) as caught:
            await world.open()
        assert "s3cret" not in str(caught.value)
        world.database.close()
        world.home.close()

    asyncio.run(main())


Kernels = Callable[[int], Awaitable[list[World]]]


@pytest.fixture
def kernels(tmp_path: Path, migrated: Path, postgres_url: str) -> Callable[[int], object]:
    """Opens several kernels, each in a home of its own, on one database."""

    @asynccontextmanager
    async def many(num: int) -> AsyncIterator[list[World]]:
        worlds = [
            World(fresh_home(tmp_path / f"home{n}", migrated), postgres_url) for n in range(num)
        ]
        for world in worlds:
            await world.open()
        try:
            yield worlds
        finally:
            for world in worlds:
                await world.close()

    return many


async def _until(check: Callable[[], bool], store: SqlJobStore) -> None:
    """Wait as a kernel does: for work."""
    async with asyncio.timeout(20):
        while not check():
            await store.wait_for_work(0.1)


def test_one_leads_and_the_other_takes_over(kernels: Callable[[int], object]) -> None:
    async def main() -> None:
        async with kernels(2) as (first, second):  # type: ignore[attr-defined]
            assert first.store.leads and not second.store.leads
            assert first.store.epoch != second.store.epoch
            (accepted,) = await second.store.add([job()])  # a stand-by takes work in
            assert await second.store.claim(5, NOW) == []
            assert await second.store.recover() == 0
            assert await second.store.fire_schedules(after(10**6)) == []
            (claimed,) = await first.store.claim(5, NOW)
            assert claimed.job_id == accepted.job_id
            attempt = await first.store.begin(claimed.job_id, NOW)
            assert attempt is not None
            # the leader's connection dies; its kernel does not
            leader = first.store._leader
            assert leader is not None
            await leader.close()
            await _until(lambda: second.store.leads, second.store)
            assert await second.store.recover() == 1
            leader.leads = True  # it does not know yet
            assert await first.store.claim(5, NOW) == []
            assert await first.store.finish(attempt, JobState.SUCCEEDED, "x") is None
            (again,) = await second.store.claim(5, NOW)
            assert again.job_id == accepted.job_id
            number = await second.store.begin(again.job_id, NOW)
            assert number is not None and number.number == 2

    asyncio.run(main())


def test_work_of_another_kernel_wakes_the_leader(kernels: Callable[[int], object]) -> None:
    async def main() -> None:
        async with kernels(2) as (first, second):  # type: ignore[attr-defined]
            await first.store.wait_for_work(0.2)
            waiting = asyncio.create_task(first.store.wait_for_work(60))
            await second.store.add([job()])
            await asyncio.wait_for(waiting, 20)
            assert len(await first.store.claim(1, NOW)) == 1

    asyncio.run(main())


def test_claims_of_two_who_both_think_they_lead_are_one_s(
    kernels: Callable[[int], object],
) -> None:
    async def main() -> None:
        async with kernels(2) as (first, second):  # type: ignore[attr-defined]
            await first.store.add([job() for _ in range(40)])
            assert second.store._leader is not None
            second.store._leader.leads = True  # wrongly
            found: list[list[JobRecord]] = await asyncio.gather(
                *(w.store.claim(5, NOW) for _ in range(8) for w in (first, second))
            )
            ids = [each.job_id for part in found for each in part]
            assert len(ids) == len(set(ids)) == 40
            second.store._leader.leads = False

    asyncio.run(main())


def test_one_key_used_at_two_kernels_at_once(kernels: Callable[[int], object]) -> None:
    async def main() -> None:
        async with kernels(2) as (first, second):  # type: ignore[attr-defined]
            for number in range(10):
                given = Idempotency(f"k{number}", "d")
                made = await asyncio.gather(
                    *(w.store.add([job()], given) for w in (first, second) * 3)
                )
                assert len({each.job_id for (each,) in made}) == 1
            assert await first.store.count() == {JobState.PENDING: 10}

    asyncio.run(main())


def test_needs_added_at_one_kernel_while_they_end_at_another(
    kernels: Callable[[int], object],
) -> None:
    async def main() -> None:
        async with kernels(2) as (first, second):  # type: ignore[attr-defined]
            for _ in range(10):
                attempt = await first.running()
                finish = first.store.finish(attempt, JobState.SUCCEEDED, "")
                add = second.store.add([job(needs=[attempt.job_id])])
                _, (kept,) = await asyncio.gather(finish, add)
                assert (await first.store.get(kept.job_id)).state is JobState.PENDING
            assert await first.store.count() == await first.recount()

    asyncio.run(main())


def test_a_crash_of_the_database_is_survived(
    server: Postgres, kernels: Callable[[int], object]
) -> None:
    async def main() -> None:
        async with kernels(1) as (world,):  # type: ignore[attr-defined]
            attempt = await world.running()
            server.stop("fast")
            try:
                with pytest.raises(StorageError):
                    await world.store.add([job()])
                with pytest.raises(StorageError):
                    await world.store.get(attempt.job_id)
            finally:
                server.start()
            (kept,) = await world.store.add([job()])
            await _until(lambda: world.store.leads, world.store)
            assert await world.end(attempt) is not None  # nobody else led meanwhile
            assert [each.job_id for each in await world.store.claim(9, NOW)] == [kept.job_id]

    asyncio.run(main())


def test_schedules_fire_at_the_leader_only(kernels: Callable[[int], object]) -> None:
    async def main() -> None:
        async with kernels(2) as worlds:  # type: ignore[attr-defined]
            for n in range(3):
                await worlds[1].store.add_schedule(
                    Schedule(f"sch_{n}", ALICE, "* * * * *", JobSpec("x"), NOW, 0)
                )
            fire = functools.partial(SqlJobStore.fire_schedules, now_ns=after(600))
            fired = await asyncio.gather(*(fire(w.store) for _ in range(3) for w in worlds))
            assert sum(map(len, fired)) == 3

    asyncio.run(main())
