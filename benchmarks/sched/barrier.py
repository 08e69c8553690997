"""The barrier batch: collect what waits, run it to its end, only then look again.

How AIOS batches (collect, send, wait for all) and how static batching works: nobody joins a batch
that runs, a row that ended early stays empty, first in is first out, classes are not looked at. It
drives the same native driver directly: no HTTP, no kernel, no queue between processes, which
favours it.
"""

from __future__ import annotations

import heapq
import sys
import time
from array import array
from collections.abc import Callable

import msgspec

from benchmarks import models
from benchmarks.sched.child import run_child, serve_parent
from benchmarks.sched.records import OK, Record
from llmos.abi.driver import Driver, ReplicaSpec
from llmos.abi.events import Finished, Tokens
from llmos.abi.inference import Sampling, WorkItem

SPARE_S = 300.0
"""The last batch runs to its end, however long it takes."""


class Kind(msgspec.Struct, frozen=True):
    """Requests of one kind, as `client.Group`."""

    name: str
    prompt_tokens: int
    output_tokens: int
    due_s: list[float] = []
    closed: int = 0


class BarrierPlan(msgspec.Struct, frozen=True):
    """Load for `duration_s` on a model of `benchmarks.models`."""

    model: str
    kinds: list[Kind]
    duration_s: float
    num_slots: int = 16
    num_threads: int = 1
    context_length: int = 1024


class Barrier:
    """The scheduler. `clock` gives seconds from the start, `sleep` waits."""

    def __init__(
        self,
        plan: BarrierPlan,
        driver: Driver,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._plan, self._driver, self._clock, self._sleep = plan, driver, clock, sleep
        self._vocab_size = models.SHAPES[plan.model].vocab_size
        self._line: list[tuple[float, int, Kind, bool]] = []
        self._num_requests = 0
        self.records: list[Record] = []
        for kind in plan.kinds:
            for due_s in kind.due_s:
                self._arrive(due_s, kind, closed=False)
            for _ in range(kind.closed):
                self._arrive(0.0, kind, closed=True)

    def _arrive(self, due_s: float, kind: Kind, *, closed: bool) -> None:
        self._num_requests += 1
        heapq.heappush(self._line, (due_s, self._num_requests, kind, closed))

    def run(self) -> list[Record]:
        """Batch after batch, until the time is over."""
        while self._line and self._clock() < self._plan.duration_s:
            wait_s = self._line[0][0] - self._clock()
            if wait_s > 0:
                self._sleep(wait_s)
            self._run_batch(self._collect())
        waiting = [Record(kind.name, due_s) for due_s, _, kind, _ in self._line]
        return self.records + [r for r in waiting if r.due_s < self._plan.duration_s]

    def _collect(self) -> dict[str, tuple[Record, Kind, bool]]:
        """Who waits now, at most a row each."""
        batch: dict[str, tuple[Record, Kind, bool]] = {}
        now_s = self._clock()
        while self._line and self._line[0][0] <= now_s and len(batch) < self._plan.num_slots:
            due_s, number, kind, closed = heapq.heappop(self._line)
            record = Record(kind.name, due_s, token_s=[], prompt_tokens=kind.prompt_tokens)
            self.records.append(record)
            batch[f"req_{number:032x}"] = record, kind, closed
        return batch

    def _run_batch(self, batch: dict[str, tuple[Record, Kind, bool]]) -> None:
        for number, (request_id, (_, kind, _)) in enumerate(batch.items()):
            prompt = models.tokens(kind.prompt_tokens, number, self._vocab_size)
            sampling = Sampling(temperature=0.0, max_tokens=kind.output_tokens, ignore_eos=True)
            self._driver.submit(WorkItem(request_id, array("i", prompt).tobytes(), sampling))
        left = dict(batch)
        while left:
            events = self._driver.step()
            now_s = self._clock()
            for event in events:
                record, kind, closed = batch[event.request_id]
                if isinstance(event, Tokens):
                    record.token_s.extend([now_s] * len(event.token_ids))
                    continue
                if not isinstance(event, Finished):
                    raise RuntimeError(f"{event.request_id} ended with {event}")
                record.status, record.end_s = OK, now_s
                del left[event.request_id]
                if closed and now_s < self._plan.duration_s:
                    self._arrive(now_s, kind, closed=True)


def run_barrier(plan: BarrierPlan) -> list[Record]:
    """Carry a plan out in a process of its own. Raises RuntimeError when that fails."""
    return run_child("benchmarks.sched.barrier", plan, plan.duration_s + SPARE_S)


def carry_out(plan: BarrierPlan) -> list[Record]:
    """In this process, on the native driver."""
    from llmos.drivers.native.driver import NativeDriver

    driver, folder = NativeDriver(), str(models.folder(plan.model))
    spec = ReplicaSpec(
        "mdl_bench", folder, folder, "", plan.context_length, plan.num_slots, plan.num_threads
    )
    driver.load(spec, lambda fraction, what: None)
    began_s = time.perf_counter()
    return Barrier(plan, driver, lambda: time.perf_counter() - began_s, time.sleep).run()


def main() -> int:
    """Plan in, records out."""
    return serve_parent(BarrierPlan, carry_out)


if __name__ == "__main__":
    sys.exit(main())
