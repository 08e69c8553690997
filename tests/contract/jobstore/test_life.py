"""Claims, attempts, ends, and the death of kernels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from llmos.abi.jobs import Attempt, JobProgress, JobState, NewEvent, ResultRow
from llmos.abi.principal import Principal, ServiceClass
from llmos.errors import ErrorInfo, InvalidRequest, NotFound
from tests.contract.jobstore.world import ALICE, BOB, NOW, World, after, checkpoint_ref, job

Run = Callable[..., None]
OOPS = ErrorInfo("program_failed", "it raised 错误")


def test_claims_go_by_class_then_age_and_give_each_job_once(run: Run) -> None:
    async def scenario(w: World) -> None:
        classes = [ServiceClass.BATCH, ServiceClass.INTERACTIVE, ServiceClass.DEFAULT] * 2
        made = [
            (await w.store.add([job(created_ns=after(n), service_class=each)]))[0]
            for n, each in enumerate(classes)
        ]
        order = [made[n].job_id for n in (1, 4, 2, 5, 0, 3)]
        first = await w.store.claim(4, NOW)
        assert [each.job_id for each in first] == order[:4]
        assert all(each.state is JobState.PENDING for each in first)
        assert [each.job_id for each in await w.store.claim(10, NOW)] == order[4:]
        assert await w.store.claim(10, NOW) == []
        await w.store.release([order[0], order[3], "job_none"])
        again = await w.store.claim(10, NOW)
        assert [each.job_id for each in again] == [order[0], order[3]]

    run(scenario)


def test_tenants_are_claimed_for_in_turn(run: Run) -> None:
    """However many jobs one of them has submitted before."""

    async def scenario(w: World) -> None:
        many = [job(ALICE, after(n)) for n in range(9)]
        few = [job(BOB, after(100 + n)) for n in range(2)]
        third = job(Principal("prn_c", "ten_c", "c"), after(300))
        urgent = job(ALICE, after(200), service_class=ServiceClass.DEFAULT)
        await w.store.add([*many, *few, third, urgent])
        found = [each.job_id for each in await w.store.claim(6, after(999))]
        (first, second, *rest), (bobs, other) = many, few
        wanted = [urgent, first, bobs, third, second, other]
        assert found == [each.job_id for each in wanted]
        found = [each.job_id for each in await w.store.claim(99, after(999))]
        assert found == [each.job_id for each in rest]

    run(scenario)


def test_a_claim_smaller_than_the_tenants_are_many(run: Run) -> None:
    async def scenario(w: World) -> None:
        made = [job(Principal(f"prn_{n}", f"ten_{n}", "x"), after(-n)) for n in range(5)]
        await w.store.add(made)
        seen = [each for _ in range(3) for each in await w.store.claim(2, NOW)]
        assert sorted(each.job_id for each in seen) == sorted(each.job_id for each in made)

    run(scenario)


def test_what_is_not_due_is_not_claimed(run: Run) -> None:
    async def scenario(w: World) -> None:
        await w.store.add([job(start_at_ns=after(60)), job(start_at_ns=after(30))])
        assert await w.store.claim(10, after(29)) == []
        assert await w.store.next_due_ns() == after(30)
        assert len(await w.store.claim(10, after(30))) == 1
        assert await w.store.next_due_ns() == after(60)
        await w.restart()
        assert await w.store.next_due_ns() == after(60)
        await w.store.recover()
        assert len(await w.store.claim(10, after(3600))) == 2
        assert await w.store.next_due_ns() is None

    run(scenario)


def test_only_a_claimed_job_begins_and_only_once(run: Run) -> None:
    async def scenario(w: World) -> None:
        (made,) = await w.store.add([job()])
        assert await w.store.begin(made.job_id, NOW) is None
        await w.store.claim(1, NOW)
        attempt = await w.store.begin(made.job_id, after(5))
        assert attempt == Attempt(made.job_id, 1, w.store.epoch)
        assert await w.store.begin(made.job_id, NOW) is None
        assert await w.store.begin("job_none", NOW) is None
        kept = await w.store.get(made.job_id)
        assert (kept.state, kept.attempt, kept.started_ns) == (JobState.RUNNING, 1, after(5))
        assert kept.epoch == w.store.epoch

    run(scenario)


async def _say(w: World, attempt: Attempt) -> list[object]:
    """Every report an attempt can make but its end."""
    store = w.store
    return [
        await store.progress(attempt, JobProgress(1.0)),
        await store.append(attempt, [NewEvent(NOW, "log", {})]),
        await store.put_results(attempt, [ResultRow("output", "k", 0, b"x")]),
        await store.checkpoint(attempt, checkpoint_ref()),
    ]


async def _try_all(w: World, old: Attempt) -> None:
    """None of an old attempt's reports changes anything."""
    before = await w.store.get(old.job_id)
    rows, events = await w.store.result_keys(old.job_id), await w.store.events(old.job_id)
    assert await _say(w, old) == [False, None, False, False]
    assert await w.store.requeue(old, 0, "x", died=True, error=None) is None
    assert await w.store.finish(old, JobState.SUCCEEDED, "x") is None
    assert await w.store.finish(old, JobState.FAILED, "x", exports={"output": "o"}) is None
    assert await w.store.get(old.job_id) == before
    assert await w.store.result_keys(old.job_id) == rows
    assert await w.store.events(old.job_id) == events


def test_an_old_attempt_changes_nothing(run: Run) -> None:
    async def scenario(w: World) -> None:
        first = await w.running()
        assert all(await _say(w, first))
        for wrong in (first.number + 1, first.number - 1):
            await _try_all(w, msgspec.structs.replace(first, number=wrong))
        await _try_all(w, msgspec.structs.replace(first, epoch=first.epoch + 1))
        await _try_all_with_other_id(w, first)
        await w.store.requeue(first, 0, "again", died=False, error=None)
        await _try_all(w, first)
        await w.store.claim(1, NOW)
        await _try_all(w, first)
        second = await w.store.begin(first.job_id, NOW)
        assert second is not None and second.number == 2
        await _try_all(w, first)
        await w.end(second)
        await _try_all(w, first)
        await _try_all(w, second)

    run(scenario)


async def _try_all_with_other_id(w: World, attempt: Attempt) -> None:
    nobody = msgspec.structs.replace(attempt, job_id="job_none")
    assert await _say(w, nobody) == [False, None, False, False]


def test_an_old_epoch_changes_nothing(run: Run) -> None:
    async def scenario(w: World) -> None:
        first = await w.running()
        await w.restart()
        assert await w.store.recover() == 1
        await _try_all(w, first)
        await w.store.claim(1, NOW)
        second = await w.store.begin(first.job_id, NOW)
        assert second is not None
        assert (second.number, second.epoch) == (2, w.store.epoch)
        await _try_all(w, first)
        assert all(await _say(w, second))

    run(scenario)


def test_a_retry_does_not_make_an_old_attempt_new(run: Run) -> None:
    async def scenario(w: World) -> None:
        first = await w.running()
        await w.end(first, JobState.FAILED)
        kept = await w.store.retry(first.job_id, "again")
        assert (kept.attempt, kept.num_deaths, kept.num_failures) == (0, 0, 0)
        await w.store.claim(1, NOW)
        second = await w.store.begin(first.job_id, NOW)
        assert second is not None and second.number == 2
        assert (await w.store.get(first.job_id)).attempt == 1
        await _try_all(w, first)

    run(scenario)


def test_a_requeued_job_waits_and_counts(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        kept = await w.store.requeue(attempt, after(10), "died", died=True, error=OOPS)
        assert kept is not None
        assert (kept.state, kept.num_deaths, kept.num_failures) == (JobState.PENDING, 1, 0)
        assert (kept.due_ns, kept.error, kept.reason) == (after(10), OOPS, "died")
        assert await w.store.claim(1, after(9)) == []
        assert await w.store.next_due_ns() == after(10)
        await w.store.claim(1, after(10))
        again = await w.store.begin(attempt.job_id, after(10))
        assert again is not None
        kept = await w.store.requeue(again, 0, "failed", died=False, error=OOPS)
        assert kept is not None and (kept.num_deaths, kept.num_failures) == (1, 1)
        (claimed,) = await w.store.claim(1, NOW)
        third = await w.store.begin(claimed.job_id, NOW)
        assert third is not None
        kept = await w.store.requeue(third, 0, "gave way", died=False, error=None)
        assert kept is not None and (kept.num_deaths, kept.num_failures) == (1, 1)

    run(scenario)


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.DEAD])
def test_an_end_is_kept(run: Run, state: JobState) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        ended = await w.store.finish(
            attempt, state, "so it is\0", outputs={"n": [1, "好"]}, error=OOPS
        )
        assert ended is not None and ended.unblocked == [] and ended.cascaded == []
        await w.restart()
        assert await w.store.recover() == 0
        kept = await w.store.get(attempt.job_id)
        assert kept == ended.job
        assert (kept.state, kept.outputs, kept.error) == (state, {"n": [1, "好"]}, OOPS)
        assert kept.ended_ns is not None and kept.reason == "so it is�"

    run(scenario)


def test_a_job_ends_only_as_something(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        with pytest.raises(InvalidRequest):
            await w.store.finish(attempt, JobState.PENDING, "x")
        assert (await w.store.get(attempt.job_id)).state is JobState.RUNNING
        with pytest.raises(NotFound):
            await w.store.get("job_none")

    run(scenario)


def test_recovery_gives_back_what_dead_kernels_held(run: Run) -> None:
    async def scenario(w: World) -> None:
        running = await w.running()
        frozen = await w.running()
        await w.store.suspend(frozen.job_id, "by hand")
        (claimed,) = await w.store.add([job()])
        await w.store.claim(1, NOW)
        await w.restart()
        assert await w.store.recover() == 1
        assert (await w.store.get(running.job_id)).num_deaths == 0
        suspended = await w.store.get(frozen.job_id)
        assert (suspended.state, suspended.reason) == (JobState.SUSPENDED, "by hand")
        found = {each.job_id for each in await w.store.claim(10, NOW)}
        assert found == {running.job_id, claimed.job_id}
        resumed = await w.store.resume(frozen.job_id, "go on")
        assert resumed.state is JobState.PENDING

    run(scenario)


def test_many_claimers_at_once_never_share(run: Run) -> None:
    async def scenario(w: World) -> None:
        made = await w.store.add([job() for _ in range(200)])

        async def work() -> list[str]:
            mine = []
            while found := await w.store.claim(7, NOW):
                for each in found:
                    attempt = await w.store.begin(each.job_id, NOW)
                    assert attempt is not None
                    assert await w.end(attempt) is not None
                    mine.append(each.job_id)
            return mine

        parts = await asyncio.gather(*(work() for _ in range(8)))
        done = [job_id for part in parts for job_id in part]
        assert sorted(done) == sorted(each.job_id for each in made)
        assert await w.store.count() == {JobState.SUCCEEDED: 200}

    run(scenario)


def test_work_is_announced(run: Run) -> None:
    async def scenario(w: World) -> None:
        await w.store.wait_for_work(0.01)
        waiting = asyncio.create_task(w.store.wait_for_work(30))
        await w.store.add([job()])
        await asyncio.wait_for(waiting, 10)

    run(scenario)
