"""Suspending, resuming, renicing, retrying, removing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmos.abi.jobs import JobFilter, JobProgress, JobState, NewEvent, ResultRow
from llmos.abi.principal import ServiceClass
from llmos.errors import Conflict, NotFound
from tests.contract.jobstore.world import NOW, World, after, checkpoint_ref, job

Run = Callable[..., None]


def test_a_suspended_job_is_left_alone_until_it_is_resumed(run: Run) -> None:
    async def scenario(w: World) -> None:
        (made,) = await w.store.add([job()])
        await w.store.claim(1, NOW)
        await w.store.suspend(made.job_id, "an operator's wish")
        assert await w.store.begin(made.job_id, NOW) is None
        assert await w.store.claim(1, NOW) == []
        await w.restart()
        await w.store.recover()
        assert await w.store.claim(1, NOW) == []
        assert (await w.store.suspend(made.job_id, "x")).reason == "an operator's wish"
        assert (await w.store.resume(made.job_id, "go")).state is JobState.PENDING
        assert len(await w.store.claim(1, NOW)) == 1
        with pytest.raises(Conflict):
            await w.store.resume(made.job_id, "go")

    run(scenario)


def test_a_suspended_attempt_goes_on_when_it_is_resumed(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        assert (await w.store.suspend(attempt.job_id, "x")).state is JobState.SUSPENDED
        assert await w.store.progress(attempt, JobProgress(0.5))
        assert (await w.store.resume(attempt.job_id, "y")).state is JobState.RUNNING
        assert await w.end(attempt) is not None

    run(scenario)


def test_a_suspended_attempt_may_yield_or_end(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.store.suspend(attempt.job_id, "x")
        kept = await w.store.requeue(attempt, 0, "yielded", died=False, error=None)
        assert kept is not None and (kept.state, kept.reason) == (JobState.SUSPENDED, "x")
        assert not await w.store.progress(attempt, JobProgress(0.5))
        assert await w.store.claim(1, NOW) == []
        assert (await w.store.resume(attempt.job_id, "y")).state is JobState.PENDING
        other = await w.running()
        await w.store.suspend(other.job_id, "x")
        assert (await w.end(other)).job.state is JobState.SUCCEEDED

    run(scenario)


def test_a_blocked_job_suspended_meanwhile(run: Run) -> None:
    async def scenario(w: World) -> None:
        top = job()
        bottom = job(needs=[top.job_id])
        await w.store.add([top, bottom])
        await w.store.suspend(bottom.job_id, "x")
        assert (await w.store.resume(bottom.job_id, "y")).state is JobState.BLOCKED
        await w.store.suspend(bottom.job_id, "x")
        assert (await w.end(await w.running(top))).unblocked == []
        assert (await w.store.resume(bottom.job_id, "y")).state is JobState.PENDING

    run(scenario)


def test_a_suspended_job_can_be_cancelled(run: Run) -> None:
    async def scenario(w: World) -> None:
        (made,) = await w.store.add([job()])
        await w.store.suspend(made.job_id, "x")
        (ended,) = await w.store.cancel(made.job_id, "y")
        assert ended.state is JobState.CANCELLED
        frozen = await w.running()
        await w.store.suspend(frozen.job_id, "x")
        (marked,) = await w.store.cancel(frozen.job_id, "y")
        assert (marked.state, marked.cancel_reason) == (JobState.SUSPENDED, "y")

    run(scenario)


def test_renicing_moves_a_job_in_the_queue(run: Run) -> None:
    async def scenario(w: World) -> None:
        first, second = job(), job(created_ns=after(1))
        await w.store.add([first, second])
        kept = await w.store.renice(second.job_id, -5, ServiceClass.DEFAULT)
        assert (kept.spec.nice, kept.spec.service_class) == (-5, ServiceClass.DEFAULT)
        kept = await w.store.renice(second.job_id, None, None)
        assert (kept.spec.nice, kept.spec.service_class) == (-5, ServiceClass.DEFAULT)
        found = await w.store.claim(2, NOW)
        assert [each.job_id for each in found] == [second.job_id, first.job_id]

    run(scenario)


def test_renicing_does_not_give_a_claim_back(run: Run) -> None:
    async def scenario(w: World) -> None:
        (made,) = await w.store.add([job()])
        await w.store.claim(1, NOW)
        await w.store.renice(made.job_id, 3, None)
        assert await w.store.claim(1, NOW) == []
        assert await w.store.begin(made.job_id, NOW) is not None

    run(scenario)


def test_a_retry_keeps_what_was_done(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.store.put_results(attempt, [ResultRow("output", "a", 0, b"x")])
        await w.store.checkpoint(attempt, checkpoint_ref())
        await w.store.append(attempt, [NewEvent(NOW, "log", {"n": 1})])
        await w.end(attempt, JobState.DEAD)
        kept = await w.store.retry(attempt.job_id, "again")
        assert (kept.state, kept.checkpoint) == (JobState.PENDING, checkpoint_ref())
        assert (kept.ended_ns, kept.started_ns, kept.error) == (None, None, None)
        assert await w.store.result_keys(attempt.job_id) == [("output", "a")]
        with pytest.raises(Conflict, match="nothing to retry"):
            await w.store.retry(attempt.job_id, "again")
        again = await w.running(kept)
        assert await w.store.append(again, [NewEvent(NOW, "log", {"n": 2})]) == 2
        await w.end(again)
        with pytest.raises(Conflict):
            await w.store.retry(attempt.job_id, "it succeeded")

    run(scenario)


def test_a_removed_job_leaves_nothing(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        with pytest.raises(Conflict, match="cancel it first"):
            await w.store.remove(attempt.job_id)
        await w.store.put_results(attempt, [ResultRow("output", "a", 0, b"x")])
        await w.store.append(attempt, [NewEvent(NOW, "log", {})])
        await w.end(attempt, JobState.FAILED)
        assert (await w.store.remove(attempt.job_id)).job_id == attempt.job_id
        assert await w.store.page(JobFilter()) == [] and await w.store.count() == {}
        assert await w.store.result_keys(attempt.job_id) == []
        for gone in (w.store.get, w.store.remove, w.store.events):
            with pytest.raises(NotFound):
                await gone(attempt.job_id)

    run(scenario)


def test_ended_and_missing_jobs_are_refused(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.end(attempt)
        with pytest.raises(Conflict):
            await w.store.suspend(attempt.job_id, "x")
        with pytest.raises(Conflict):
            await w.store.renice(attempt.job_id, 1, None)
        for call in (w.store.suspend, w.store.resume, w.store.retry, w.store.cancel):
            with pytest.raises(NotFound):
                await call("job_none", "x")
        with pytest.raises(NotFound):
            await w.store.renice("job_none", 1, None)

    run(scenario)
