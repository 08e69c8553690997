"""Taking jobs in."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from llmos.abi.jobs import Idempotency, JobFilter, JobState
from llmos.errors import Conflict, IdempotencyMismatch, InvalidRequest, NotFound, QuotaExceeded
from tests.contract.jobstore.world import ALICE, BOB, NOW, World, after, digests, job

Run = Callable[..., None]


def test_a_job_is_kept_whole_over_a_restart(run: Run) -> None:
    async def scenario(w: World) -> None:
        asked = job(
            name="训练 🐼",
            inputs={"text": "\u0000\ud7ff😀", "n": 2**53, "deep": [{"a": None}]},
            metadata={"k": "v"},
            nice=-3,
            timeout_s=1.5,
        )
        (kept,) = await w.store.add([asked])
        assert kept == msgspec.structs.replace(asked, epoch=w.store.epoch)
        await w.restart()
        assert await w.store.get(kept.job_id) == kept

    run(scenario)


def test_all_or_none(run: Run) -> None:
    async def scenario(w: World) -> None:
        with pytest.raises(NotFound) as caught:
            await w.store.add([job(), job(needs=["job_none"])])
        assert caught.value.param == "needs"
        with pytest.raises(NotFound) as caught:
            await w.store.add([job(), job(parent_id="job_none")])
        assert caught.value.param == "parent_id"
        with pytest.raises(NotFound, match="file_none"):
            await w.store.add([job(), job(files={"in": "file_none"})])
        assert await w.store.page(JobFilter()) == []
        assert await w.store.add([]) == []

    run(scenario)


def test_what_belongs_to_another_tenant_is_not_there(run: Run) -> None:
    async def scenario(w: World) -> None:
        (theirs,) = await w.store.add([job(BOB)])
        file_id = await w.add_file("x", BOB)
        for spec in (
            {"needs": [theirs.job_id]},
            {"parent_id": theirs.job_id},
            {"files": {"in": file_id}},
        ):
            with pytest.raises(NotFound):
                await w.store.add([job(ALICE, **spec)])
        await w.store.add([job(BOB, files={"in": file_id}, needs=[theirs.job_id])])

    run(scenario)


def test_circles_and_twins_are_refused(run: Run) -> None:
    async def scenario(w: World) -> None:
        a, b, c = job(), job(), job()
        a = msgspec.structs.replace(a, spec=msgspec.structs.replace(a.spec, needs=[c.job_id]))
        b = msgspec.structs.replace(b, spec=msgspec.structs.replace(b.spec, needs=[a.job_id]))
        c = msgspec.structs.replace(c, spec=msgspec.structs.replace(c.spec, needs=[b.job_id]))
        with pytest.raises(InvalidRequest, match="circle"):
            await w.store.add([job(), a, b, c])
        with pytest.raises(Conflict, match="same id"):
            await w.store.add([b, b])
        (kept,) = await w.store.add([job()])
        with pytest.raises(Conflict, match="exists"):
            await w.store.add([job(), kept])
        assert len(await w.store.page(JobFilter())) == 1

    run(scenario)


def test_an_ended_parent_takes_no_children(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.end(attempt)
        with pytest.raises(Conflict, match="ended"):
            await w.store.add([job(parent_id=attempt.job_id)])

    run(scenario)


def test_a_job_that_needs_what_failed_ends_at_once(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.end(attempt, JobState.FAILED)
        first = job(needs=[attempt.job_id])
        second = job(needs=[first.job_id])
        kept = await w.store.add([second, first])
        assert [each.state for each in kept] == [JobState.CANCELLED] * 2
        assert attempt.job_id in kept[1].reason and first.job_id in kept[0].reason

    run(scenario)


def test_what_has_ended_already_is_recorded_as_it_is(run: Run) -> None:
    async def scenario(w: World) -> None:
        answered = msgspec.structs.replace(
            job(program="infer"), state=JobState.SUCCEEDED, outputs={"answer": "好"}
        )
        await w.store.add([answered])
        kept = await w.store.get(answered.job_id)
        assert (kept.state, kept.outputs) == (JobState.SUCCEEDED, {"answer": "好"})
        assert kept.ended_ns == NOW
        assert await w.store.claim(10, NOW) == []

    run(scenario)


def test_an_idempotency_key_makes_a_job_once(run: Run) -> None:
    async def scenario(w: World) -> None:
        given = Idempotency("钥匙", "digest")
        first = await w.store.add([job(), job()], given)
        assert await w.store.add([job(), job()], given) == first
        await w.restart()
        again = await w.store.add([job()], given)
        assert [each.job_id for each in again] == [each.job_id for each in first]
        with pytest.raises(IdempotencyMismatch):
            await w.store.add([job()], Idempotency("钥匙", "another"))
        (theirs,) = await w.store.add([job(BOB)], Idempotency("钥匙", "another"))
        assert theirs.principal == BOB
        assert len(await w.store.page(JobFilter())) == 3

    run(scenario)


def test_a_refused_call_uses_up_no_key(run: Run) -> None:
    async def scenario(w: World) -> None:
        given = Idempotency("k", "d")
        with pytest.raises(NotFound):
            await w.store.add([job(needs=["job_none"])], given)
        (kept,) = await w.store.add([job()], given)
        attempt = await w.running(kept)
        await w.end(attempt)
        await w.store.remove(kept.job_id)
        with pytest.raises(NotFound, match="removed"):
            await w.store.add([job()], given)
        for key in ("", "x" * 256, "a\0b"):
            with pytest.raises(InvalidRequest, match="Idempotency-Key"):
                await w.store.add([job()], Idempotency(key, "d"))

    run(scenario)


def test_what_a_job_reads_stays_when_its_file_goes(run: Run) -> None:
    async def scenario(w: World) -> None:
        file_id = await w.add_file("data")
        row, _ = await w.read_file(file_id)
        (kept,) = await w.store.add([job(files={"input": file_id})])
        await w.store.database.write(
            lambda c: c.exec_driver_sql(f"DELETE FROM files WHERE file_id = '{file_id}'")
        )
        assert await digests(w.store) == {row["digest"]}
        await w.store.cancel(kept.job_id, "no more")
        assert await digests(w.store) == set()

    run(scenario)


def test_a_page_holds_what_was_asked_newest_first(run: Run) -> None:
    async def scenario(w: World) -> None:
        made = []
        for number in range(12):
            owner = ALICE if number % 3 else BOB
            program = "infer" if number % 2 else "batch"
            made += await w.store.add([job(owner, after(number), program=program)])
        made.sort(key=lambda each: each.job_id, reverse=True)
        assert await w.store.page(JobFilter(limit=5)) == made[:5]
        second = await w.store.page(JobFilter(limit=5, after=made[4].job_id))
        assert second == made[5:10]
        mine = [each for each in made if each.principal == ALICE]
        assert await w.store.page(JobFilter(tenant_id="ten_a")) == mine
        batches = [each for each in mine if each.spec.program == "batch"]
        query = JobFilter(tenant_id="ten_a", programs=["batch", "none", "batch"])
        assert await w.store.page(query) == batches
        await w.store.cancel(made[3].job_id, "x")
        query = JobFilter(states=[JobState.CANCELLED, JobState.DEAD])
        assert [each.job_id for each in await w.store.page(query)] == [made[3].job_id]
        query = JobFilter(
            states=[JobState.CANCELLED, JobState.PENDING], programs=["infer", "batch"]
        )
        assert [each.job_id for each in await w.store.page(query)] == [each.job_id for each in made]

    run(scenario)


def test_a_tenant_may_be_given_so_many_jobs_and_no_more(run: Run) -> None:
    """Those that have ended do not count, and a call is taken whole or not at all."""

    async def scenario(w: World) -> None:
        first, second = await w.store.add([job(), job()])
        for more in ([job()], [job(BOB), job()]):
            with pytest.raises(QuotaExceeded):
                await w.store.add(more)
        assert len(await w.store.page(JobFilter())) == 2
        await w.store.add([job(BOB)])
        ended = msgspec.structs.replace(job(), state=JobState.SUCCEEDED, ended_ns=NOW)
        await w.store.add([ended])
        await w.store.cancel(first.job_id, "no more")
        await w.store.add([job()], Idempotency("k", "d"))
        await w.store.add([job()], Idempotency("k", "d"))  # nothing new
        with pytest.raises(QuotaExceeded):
            await w.store.add([job(needs=[second.job_id])])

    run(scenario, max_tenant_jobs=2)
