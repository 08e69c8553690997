"""The kernel's loop: drain the inbox, one pure step, apply what it decided. No locks, no tasks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from llmos.kernel.core.decisions import Decision
from llmos.kernel.core.events import CoreEvent, Tick
from llmos.kernel.core.state import State
from llmos.kernel.core.step import step
from llmos.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Loop:
    """`post` on the event loop's thread; everything posted in one turn is one step.

    `fatal` is called when the core itself raises: its state can no longer be trusted.
    """

    def __init__(
        self,
        state: State,
        apply: Callable[[Decision], None],
        fatal: Callable[[Exception], None],
        metrics: Metrics,
    ) -> None:
        self._state = state
        self._apply = apply
        self._fatal = fatal
        self._metrics = metrics
        self._inbox: list[CoreEvent] = []
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ns = 0
        self._proofs: list[asyncio.Future[None]] = []

    async def prove(self) -> None:
        """Returns after a whole turn: a step, and its decisions applied."""
        proof: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._proofs.append(proof)
        self.post(Tick())
        await proof

    def post(self, event: CoreEvent) -> None:
        """State before signal: the event is in the inbox before the turn is asked for."""
        self._inbox.append(event)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        events, self._inbox = self._inbox, []
        now_ns = time.monotonic_ns()
        self._metrics.turns.inc()
        try:
            decisions = step(self._state, events, now_ns)
        except Exception as error:
            log.exception("the core failed", extra={"events": repr(events)})
            self._fatal(error)
            return
        for decision in decisions:
            try:
                self._apply(decision)
            except Exception:
                self._metrics.step_errors.inc()
                log.exception("a decision could not be applied", extra={"decision": repr(decision)})
        self._arm(now_ns)
        if self._proofs:
            proofs, self._proofs = self._proofs, []
            for proof in proofs:
                if not proof.done():
                    proof.set_result(None)

    def _arm(self, now_ns: int) -> None:
        due_ns = self._state.next_due_ns()
        if due_ns is None or (self._timer is not None and self._timer_due_ns == due_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(0, due_ns - now_ns) / 1e9
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)
        self._timer_due_ns = due_ns

    def _tick(self) -> None:
        self._timer = None
        self.post(Tick())

    def stop(self) -> None:
        """No more ticks."""
        if self._timer is not None:
            self._timer.cancel()
