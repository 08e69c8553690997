"""A clock that was set back while jobs waited to be tried again."""

from __future__ import annotations

from collections.abc import Callable

from llmos.abi.jobs import JobState
from tests.contract.jobstore.world import NOW, World, after, job

Run = Callable[..., None]
HOUR_S = 3600.0


def test_a_back_off_from_before_the_clock_was_set_back_ends(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.store.requeue(attempt, after(HOUR_S + 2), "again", died=True, error=None)
        (planned,) = await w.store.add([job(start_at_ns=after(HOUR_S))])
        assert await w.store.claim(10, NOW) == []
        await w.store.recover(NOW)
        (found,) = await w.store.claim(10, NOW)
        assert (found.job_id, found.state) == (attempt.job_id, JobState.PENDING)
        (found,) = await w.store.claim(10, after(HOUR_S))
        assert found.job_id == planned.job_id

    run(scenario)


def test_one_that_the_clock_explains_goes_on(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.store.requeue(attempt, after(300), "again", died=True, error=None)
        await w.store.recover(NOW)
        assert await w.store.claim(10, after(299)) == []
        assert len(await w.store.claim(10, after(300))) == 1

    run(scenario)
