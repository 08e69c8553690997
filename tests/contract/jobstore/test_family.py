"""Needs, parents and children, and what ends with what."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmos.abi.jobs import JobRecord, JobState
from llmos.errors import Conflict
from tests.contract.jobstore.world import NOW, World, job

Run = Callable[..., None]


async def _states(w: World, *made: JobRecord) -> list[JobState]:
    return [(await w.store.get(each.job_id)).state for each in made]


def test_a_diamond_runs_in_order(run: Run) -> None:
    async def scenario(w: World) -> None:
        top = job()
        left, right = job(needs=[top.job_id]), job(needs=[top.job_id, top.job_id])
        bottom = job(needs=[left.job_id, right.job_id])
        kept = await w.store.add([bottom, right, left, top])
        assert [each.num_unmet for each in kept] == [2, 1, 1, 0]
        blocked = JobState.BLOCKED
        assert await _states(w, top, left, right, bottom) == [JobState.PENDING] + [blocked] * 3
        assert [each.job_id for each in await w.store.claim(9, NOW)] == [top.job_id]
        await w.store.release([top.job_id])
        ended = await w.end(await w.running(top))
        assert {each.job_id for each in ended.unblocked} == {left.job_id, right.job_id}
        assert (await w.end(await w.running(left))).unblocked == []
        await w.restart()
        ended = await w.end(await w.running(right))
        assert [each.job_id for each in ended.unblocked] == [bottom.job_id]
        assert ended.unblocked[0].state is JobState.PENDING
        await w.end(await w.running(bottom))
        assert await w.store.count() == {JobState.SUCCEEDED: 4}

    run(scenario)


def test_a_met_need_does_not_block(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.end(attempt)
        (kept,) = await w.store.add([job(needs=[attempt.job_id])])
        assert (kept.state, kept.num_unmet) == (JobState.PENDING, 0)

    run(scenario)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED, JobState.DEAD])
def test_what_needs_a_job_that_did_not_succeed_is_cancelled(run: Run, state: JobState) -> None:
    async def scenario(w: World) -> None:
        top, other = job(), job()
        middle = job(needs=[top.job_id, other.job_id])
        bottom, child = job(needs=[middle.job_id]), job(parent_id=middle.job_id)
        await w.store.add([top, other, middle, bottom, child])
        ended = await w.end(await w.running(top), state)
        gone = {each.job_id: each for each in ended.cascaded}
        assert set(gone) == {middle.job_id, bottom.job_id, child.job_id}
        assert all(each.state is JobState.CANCELLED for each in gone.values())
        assert top.job_id in gone[middle.job_id].reason
        assert middle.job_id in gone[bottom.job_id].reason
        assert await _states(w, other) == [JobState.PENDING]

    run(scenario)


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
def test_children_end_with_their_parent(run: Run, state: JobState) -> None:
    async def scenario(w: World) -> None:
        parent = await w.running()
        pending, busy = job(parent_id=parent.job_id), job(parent_id=parent.job_id)
        grandchild = job(parent_id=busy.job_id)
        await w.store.add([pending, busy, grandchild])
        attempt = await w.running(busy)
        ended = await w.end(parent, state)
        told = {each.job_id: each for each in ended.cascaded}
        assert set(told) == {pending.job_id, busy.job_id, grandchild.job_id}
        assert told[busy.job_id].state is JobState.RUNNING
        assert parent.job_id in (told[busy.job_id].cancel_reason or "")
        cancelled, running = JobState.CANCELLED, JobState.RUNNING
        assert await _states(w, pending, busy, grandchild) == [cancelled, running, cancelled]
        assert await w.end(attempt, JobState.CANCELLED) is not None

    run(scenario)


def test_cancelling_ends_what_does_not_run_and_marks_what_does(run: Run) -> None:
    async def scenario(w: World) -> None:
        root = await w.running()
        child, needs_root = job(parent_id=root.job_id), job(needs=[root.job_id])
        needs_child = job(needs=[child.job_id])
        await w.store.add([child, needs_root, needs_child])
        changed = await w.store.cancel(root.job_id, "不要了\0")
        assert changed[0].job_id == root.job_id
        assert (changed[0].state, changed[0].cancel_reason) == (JobState.RUNNING, "不要了�")
        assert {each.job_id for each in changed[1:]} == {child.job_id, needs_child.job_id}
        assert await _states(w, child, needs_child, needs_root) == [
            JobState.CANCELLED,
            JobState.CANCELLED,
            JobState.BLOCKED,
        ]
        again = await w.store.cancel(root.job_id, "another reason")
        assert again[0].cancel_reason == "不要了�"
        ended = await w.end(root, JobState.CANCELLED)
        assert [each.job_id for each in ended.cascaded] == [needs_root.job_id]
        after_all = await w.store.cancel(root.job_id, "too late")
        assert after_all == [ended.job]

    run(scenario)


def test_a_cancelled_job_whose_kernel_died_is_claimed_marked(run: Run) -> None:
    async def scenario(w: World) -> None:
        root = await w.running()
        await w.store.cancel(root.job_id, "enough")
        await w.restart()
        await w.store.recover()
        (found,) = await w.store.claim(1, NOW)
        assert (found.job_id, found.cancel_reason) == (root.job_id, "enough")
        attempt = await w.store.begin(root.job_id, NOW)
        assert attempt is not None
        assert (await w.end(attempt, JobState.CANCELLED)).job.state is JobState.CANCELLED

    run(scenario)


def test_a_deep_chain_ends_in_one_go(run: Run) -> None:
    async def scenario(w: World) -> None:
        chain = [job()]
        for _ in range(150):
            chain.append(job(needs=[chain[-1].job_id]))
        await w.store.add(chain)
        changed = await w.store.cancel(chain[0].job_id, "all of it")
        assert len(changed) == 151
        assert await w.store.count() == {JobState.CANCELLED: 151}

    run(scenario)


def test_a_retry_needs_what_it_needed(run: Run) -> None:
    async def scenario(w: World) -> None:
        top = job()
        bottom = job(needs=[top.job_id])
        await w.store.add([top, bottom])
        await w.end(await w.running(top), JobState.FAILED)
        with pytest.raises(Conflict, match=top.job_id):
            await w.store.retry(bottom.job_id, "hope")
        await w.store.retry(top.job_id, "again")
        kept = await w.store.retry(bottom.job_id, "again")
        assert (kept.state, kept.num_unmet) == (JobState.BLOCKED, 1)
        ended = await w.end(await w.running(top))
        assert [each.job_id for each in ended.unblocked] == [bottom.job_id]
        await w.store.remove(top.job_id)
        await w.end(await w.running(bottom), JobState.FAILED)
        assert (await w.store.retry(bottom.job_id, "again")).state is JobState.PENDING

    run(scenario)
