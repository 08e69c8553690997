"""Jobs by the clock, which may jump; and what is forgotten by it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from sqlalchemy import func, insert, select

from llmos.abi.ids import new_id
from llmos.abi.jobs import Idempotency, JobFilter, JobSpec, JobState, NewEvent, Schedule
from llmos.errors import InvalidRequest, NotFound, QuotaExceeded
from llmos.storage.jobs.cron import next_ns
from llmos.storage.tables import files, idempotency, job_events
from tests.contract.jobstore.world import ALICE, BOB, NOW, SECOND, World, after, job

Run = Callable[..., None]
HOUR = 3600
START = NOW - NOW % (HOUR * SECOND)
"""A full hour, UTC."""


def schedule(cron: str = "0 * * * *", **fields: object) -> Schedule:
    return msgspec.structs.replace(
        Schedule(new_id("sch"), ALICE, cron, JobSpec("tidy"), START, 0), **fields
    )


def at(hours: float) -> int:
    return START + int(hours * HOUR * SECOND)


def test_a_schedule_fires_once_when_it_is_due(run: Run) -> None:
    async def scenario(w: World) -> None:
        kept = await w.store.add_schedule(schedule())
        assert kept.next_ns == at(1)
        assert await w.store.next_due_ns() == at(1)
        assert await w.store.fire_schedules(at(0.99)) == []
        (fired,) = await w.store.fire_schedules(at(1))
        assert await w.store.fire_schedules(at(1)) == []
        assert (fired.spec, fired.principal, fired.state) == (kept.spec, ALICE, JobState.PENDING)
        await w.restart()
        (found,) = await w.store.list_schedules(None)
        assert (found.next_ns, found.last_job_id) == (at(2), fired.job_id)
        assert [each.job_id for each in await w.store.claim(9, at(1))] == [fired.job_id]

    run(scenario)


def test_missed_times_are_made_up_by_one_job(run: Run) -> None:
    async def scenario(w: World) -> None:
        await w.store.add_schedule(schedule())
        assert len(await w.store.fire_schedules(at(30.5))) == 1
        (found,) = await w.store.list_schedules(None)
        assert found.next_ns == at(31)

    run(scenario)


def test_a_clock_that_jumps_an_hour(run: Run) -> None:
    async def scenario(w: World) -> None:
        await w.store.add_schedule(schedule("*/30 * * * *"))
        assert len(await w.store.fire_schedules(at(0.5))) == 1
        assert len(await w.store.fire_schedules(at(1.51))) == 1  # forwards: one for two
        assert await w.store.fire_schedules(at(0.6)) == []  # back: not again what was done
        assert await w.store.fire_schedules(at(1.6)) == []
        assert len(await w.store.fire_schedules(at(2))) == 1
        assert len(await w.store.page(JobFilter())) == 3
        (waiting,) = await w.store.add([job(start_at_ns=at(3))])
        assert len(await w.store.claim(9, at(1))) == 3
        assert [each.job_id for each in await w.store.claim(9, at(4))] == [waiting.job_id]

    run(scenario)


def test_schedules_of_a_tenant_and_bad_ones(run: Run) -> None:
    async def scenario(w: World) -> None:
        mine = await w.store.add_schedule(schedule())
        paused = await w.store.add_schedule(schedule(principal=BOB, paused=True))
        assert await w.store.list_schedules("ten_a") == [mine]
        assert len(await w.store.fire_schedules(at(5))) == 1
        assert await w.store.remove_schedule(paused.schedule_id) == paused
        with pytest.raises(NotFound):
            await w.store.remove_schedule(paused.schedule_id)
        for cron in ("", "* * * *", "61 * * * *", "* * * * * *", "0 0 30 2 *", "每天", "@daily"):
            with pytest.raises(InvalidRequest) as caught:
                await w.store.add_schedule(schedule(cron))
            assert caught.value.param == "cron"
        for zone in ("", "Mars/Olympus", "../../etc/passwd", "America", "a\0b", "时区"):
            with pytest.raises(InvalidRequest) as caught:
                await w.store.add_schedule(schedule(timezone=zone))
            assert caught.value.param == "timezone"

    run(scenario)


def test_a_schedule_whose_job_cannot_be_says_so_and_hinders_no_other(run: Run) -> None:
    async def scenario(w: World) -> None:
        broken = JobSpec("tidy", files={"in": "file_gone"})
        await w.store.add_schedule(schedule(spec=broken))
        await w.store.add_schedule(schedule())
        fired = await w.store.fire_schedules(at(1))
        states = sorted(each.state for each in fired)
        assert states == [JobState.FAILED, JobState.PENDING]
        failed = next(each for each in fired if each.state is JobState.FAILED)
        assert failed.error is not None and "file_gone" in failed.error.message

    run(scenario)


@pytest.mark.parametrize(
    ("cron", "zone", "after_local", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2027-03-28T01:00", "2027-03-28T03:00"),  # no 02:30
        ("30 2 * * *", "Europe/Berlin", "2027-10-31T01:00", "2027-10-31T02:30"),  # twice 02:30
        ("0 9 * * MON", "Asia/Shanghai", "2027-01-01T00:00", "2027-01-04T09:00"),
        ("0 0 29 2 *", "UTC", "2027-01-01T00:00", "2028-02-29T00:00"),
    ],
)
def test_local_times(cron: str, zone: str, after_local: str, expected: str) -> None:
    tz = ZoneInfo(zone)

    def ns(local: str) -> int:
        return int(datetime.fromisoformat(local).replace(tzinfo=tz).timestamp()) * SECOND

    assert next_ns(cron, zone, ns(after_local)) == ns(expected)


def test_a_time_that_comes_twice_is_taken_once() -> None:
    tz = ZoneInfo("Europe/Berlin")
    midnight = datetime(2027, 10, 31, tzinfo=tz)
    first = next_ns("30 2 * * *", "Europe/Berlin", int(midnight.timestamp()) * SECOND)
    second = next_ns("30 2 * * *", "Europe/Berlin", first)
    assert (second - first) // SECOND == 25 * HOUR


def test_what_is_past_its_time_is_forgotten(run: Run) -> None:
    async def scenario(w: World) -> None:
        old = [await w.running() for _ in range(5)]
        for attempt in old:
            await w.store.append(attempt, [NewEvent(NOW, "log", {})] * 2)
            await w.end(attempt)
        (live,) = await w.store.add([job()], Idempotency("k", "d"))
        await w.add_file("kept")
        await _add_row_of_file(w, expires_ns=after(50))
        assert await w.store.retain(after(49)) == 0
        ended_ns = max([(await w.store.get(each.job_id)).ended_ns or 0 for each in old])
        num = await w.store.retain(ended_ns + 100 * SECOND)
        assert num == 3 * 3 + 2  # three jobs with two events each, a key, a file
        assert await w.store.retain(ended_ns + 100 * SECOND) == 2 * 3
        assert await w.store.retain(ended_ns + 100 * SECOND) == 0
        assert [each.job_id for each in await w.store.page(JobFilter())] == [live.job_id]
        for table, left in ((files, 1), (idempotency, 0), (job_events, 0)):
            query = select(func.count()).select_from(table)
            assert await w.store.database.read(lambda c, q=query: c.execute(q).scalar()) == left

    run(scenario, keep_jobs_s=100, keep_idempotency_s=50, retain_jobs=3)


async def _add_row_of_file(w: World, expires_ns: int) -> None:
    row = {"tenant_id": "t", "principal_id": "p", "filename": "f", "purpose": "batch"}
    row |= {"file_id": new_id("file"), "digest": "sha256:" + os.urandom(32).hex()}
    values = {**row, "size_bytes": 1, "created_ns": NOW, "expires_ns": expires_ns, "epoch": 1}
    await w.store.database.write(lambda c: c.execute(insert(files).values(**values)))


def test_a_tenant_may_have_so_many_schedules(run: Run) -> None:
    async def scenario(w: World) -> None:
        kept = [await w.store.add_schedule(schedule()) for _ in range(2)]
        with pytest.raises(QuotaExceeded):
            await w.store.add_schedule(schedule())
        await w.store.add_schedule(schedule(principal=BOB))
        await w.store.remove_schedule(kept[0].schedule_id)
        await w.store.add_schedule(schedule())

    run(scenario, max_schedules=2)


def test_a_schedule_whose_tenant_has_its_fill_says_so_and_goes_on(run: Run) -> None:
    async def scenario(w: World) -> None:
        await w.store.add_schedule(schedule())
        await w.store.add_schedule(schedule(principal=BOB))
        (mine,) = await w.store.add([job()])
        refused, others = sorted(
            await w.store.fire_schedules(at(1)), key=lambda each: each.principal.tenant_id
        )
        assert (refused.state, others.state) == (JobState.FAILED, JobState.PENDING)
        assert refused.error is not None and refused.error.code == QuotaExceeded.code
        await w.store.cancel(mine.job_id, "room")
        (fired,) = [each for each in await w.store.fire_schedules(at(2)) if each.principal == ALICE]
        assert fired.state is JobState.PENDING

    run(scenario, max_tenant_jobs=1)
