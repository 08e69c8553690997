"""A cancel that was acknowledged, and a kernel that had decided already."""

from __future__ import annotations

from collections.abc import Callable

from llmos.abi.jobs import JobState, ResultRow
from tests.contract.jobstore.world import World

Run = Callable[..., None]


def test_what_was_cancelled_does_not_succeed_after_all(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.store.put_results(attempt, [ResultRow("output", "a", 0, b"{}")])
        await w.store.cancel(attempt.job_id, "enough")
        ended = await w.store.finish(
            attempt,
            JobState.SUCCEEDED,
            "it returned",
            outputs={"loss": 1},
            exports={"output": "out.jsonl"},
        )
        assert ended is not None
        assert (ended.job.state, ended.job.reason) == (JobState.CANCELLED, "enough")
        assert ended.job.outputs is not None and ended.job.outputs["loss"] == 1
        assert await w.store.result_keys(attempt.job_id) == [("output", "a")]

    run(scenario)


def test_how_else_it_ended_is_kept(run: Run) -> None:
    async def scenario(w: World) -> None:
        attempt = await w.running()
        await w.store.cancel(attempt.job_id, "enough")
        ended = await w.end(attempt, JobState.FAILED)
        assert ended.job.state == JobState.FAILED

    run(scenario)
