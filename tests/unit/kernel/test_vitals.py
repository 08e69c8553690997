"""Proof of life: shared, fresh, bounded, and honest about what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from llmos.abi.policy import Tuning
from llmos.errors import DiskFull
from llmos.kernel.core.limits import Limits
from llmos.kernel.core.policies import fifo
from llmos.kernel.core.state import initial
from llmos.kernel.loop import Loop
from llmos.kernel.vitals import Vitals
from llmos.telemetry.metrics import Metrics


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


class Parts:
    """A step and a write, each as asked for."""

    def __init__(self) -> None:
        self.num_writes = 0
        self.failure: Exception | None = None
        self.hangs = False

    async def step(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()

    async def write(self) -> None:
        self.num_writes += 1
        if self.failure is not None:
            raise self.failure

    def vitals(self, fresh_s: float = 60.0, timeout_s: float = 5.0) -> Vitals:
        return Vitals(self.step, self.write, fresh_s=fresh_s, timeout_s=timeout_s)


def test_nothing_is_well_before_the_first_proof() -> None:
    assert Parts().vitals().problems == ["the store was not probed yet"]


def test_a_crowd_of_askers_costs_one_write() -> None:
    async def main() -> None:
        parts = Parts()
        vitals = parts.vitals()
        assert await asyncio.gather(*(vitals.check() for _ in range(100))) == [[]] * 100
        await vitals.check()
        assert parts.num_writes == 1

    run(main)


def test_a_store_that_cannot_write_is_told_and_its_recovery_noticed() -> None:
    async def main() -> None:
        parts = Parts()
        vitals = parts.vitals(fresh_s=-1.0)
        parts.failure = DiskFull("the disk is full")
        assert await vitals.check() == ["the store cannot write: the disk is full"]
        parts.failure = None
        assert await vitals.check() == []

    run(main)


def test_a_kernel_that_does_not_step_fails_its_proof_in_time() -> None:
    async def main() -> None:
        parts = Parts()
        parts.hangs = True
        problems = await parts.vitals(timeout_s=0.01).check()
        assert problems == ["the kernel does not step: nothing within 0.01 s"]

    run(main)


def test_an_asker_who_leaves_takes_the_proof_from_nobody() -> None:
    async def main() -> None:
        parts = Parts()
        vitals = parts.vitals()
        first, second = (asyncio.ensure_future(vitals.check()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == []

    run(main)


def test_the_loop_proves_a_turn() -> None:
    async def main() -> None:
        failures: list[Exception] = []
        loop = Loop(
            initial(Limits(memory_budget_bytes=1), lambda: fifo.make(Tuning())),
            lambda _: None,
            failures.append,
            Metrics(),
        )
        await asyncio.wait_for(loop.prove(), 5)
        assert failures == []
        loop.stop()

    run(main)
