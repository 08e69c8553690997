"""Requests of items over an engine that computes rows: who waits, who is said what. No engine here.

A step is one batch. There is no state of a request worth keeping but which of its items are
answered, so a suspended one is computed again from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from llmos.abi.events import Aborted, Event, Finished, FinishReason, ItemOutput, Outputs
from llmos.abi.inference import Usage, WorkItem
from llmos.drivers.encoder import payload
from llmos.drivers.encoder.batch import pick
from llmos.drivers.encoder.limits import LIMITS, EncoderLimits
from llmos.drivers.encoder.work import (
    Open,
    Request,
    Work,
    answer,
    drop_item,
    in_turns,
    open_request,
)
from llmos.errors import (
    Conflict,
    EngineFailed,
    InvalidRequest,
    LLMOSError,
    UnsupportedParameter,
)


class Engine(Protocol):
    """What computes: bounds of a batch, and the results of its rows. `run` raises EngineFailed."""

    @property
    def limits(self) -> EncoderLimits: ...

    def run(self, batch: Sequence[Work]) -> list[Any]: ...


Finish = Callable[[str, Open, dict[str, Any]], ItemOutput]
"""An item's answer, of its kind, its rows' results and the request's params. Raises LLMOSError."""


class ItemLoop:
    """The requests of one engine, which can be asked for `kinds`."""

    def __init__(self, engine: Engine, finish: Finish, kinds: Sequence[str]) -> None:
        self._engine = engine
        self._finish = finish
        self._kinds = kinds
        self._requests: dict[str, Request] = {}
        self._outbox: list[Event] = []
        self._num_submitted = 0

    def submit(self, item: WorkItem) -> None:
        """Raises UserError for what cannot be honoured."""
        if item.kind not in self._kinds:
            raise UnsupportedParameter(f"kind {item.kind!r} is not supported", param="kind")
        for name in ("adapter", "grammar", "deterministic"):
            if getattr(item, name):
                raise UnsupportedParameter(f"{name} is not supported by this model", param=name)
        for name in item.options:
            raise UnsupportedParameter(f"there is no option {name[:80]}", param="llmos.driver")
        if item.request_id in self._requests:
            raise Conflict(f"{item.request_id} is here already")
        try:
            given = payload.decode(item.payload)
        except ValueError as error:
            raise InvalidRequest(f"the request was not prepared for this driver: {error}") from None
        self._num_submitted += 1
        self._requests[item.request_id] = open_request(item, given, self._num_submitted)

    def set_paused(self, request_id: str, is_paused: bool) -> None:
        """From the next step on."""
        if request := self._requests.get(request_id):
            request.is_paused = is_paused

    def abort(self, request_id: str, reason: str) -> None:
        """The next step tells."""
        if request := self._requests.pop(request_id, None):
            self._outbox.append(Aborted(request_id, reason, _usage(request)))
            self._forget(request)

    def counts(self) -> tuple[int, int]:
        """Requests that run, and that are paused."""
        num_paused = sum(request.is_paused for request in self._requests.values())
        return len(self._requests) - num_paused, num_paused

    def can_move(self) -> bool:
        """Whether a step has work."""
        return bool(self._outbox) or any(
            request.ready or (request.waiting and not request.is_paused) or request.is_over
            for request in self._requests.values()
        )

    def step(self) -> list[Event]:
        """Compute, and say which items that completed."""
        self._work()
        events, self._outbox = self._outbox, []
        for request in list(self._requests.values()):
            if request.ready:
                events.append(Outputs(request.request_id, request.ready))
                request.ready = []
            if request.is_over:
                del self._requests[request.request_id]
                events.append(Finished(request.request_id, FinishReason.STOP, _usage(request)))
        return events

    # what another way to compute may do otherwise

    def _work(self) -> None:
        if batch := self._next_batch():
            self._isolate(self._compute, batch)

    def _limits(self, first: Work) -> EncoderLimits:
        """Of a batch that begins with this row; `batch_rows` 0: none may begin now."""
        return self._engine.limits

    def _likeness(self, work: Work) -> Any:
        """Equal of all rows of a batch: of what is no text there is no padding."""
        return work.row.shape

    def _forget(self, request: Request) -> None:
        """It has been ended."""

    # batches

    def _next_batch(self) -> list[Work]:
        """Whoever is first, and who goes well with it; they wait no more."""
        first = in_turns(self._requests.values(), 1)
        limits = self._limits(first[0]) if first else LIMITS
        if not first or not limits.batch_rows:
            return []
        works = in_turns(self._requests.values(), LIMITS.look_rows)
        likeness = self._likeness(works[0])
        chosen = [works[i] for i in pick([work.row.length for work in works], limits)]
        batch = [work for work in chosen if self._likeness(work) == likeness]
        taken = set(map(id, batch))
        for request in {id(work.request): work.request for work in batch}.values():
            waiting = request.waiting  # what is taken lies among the first: the rest stays
            head = [waiting.popleft() for _ in range(min(len(waiting), LIMITS.look_rows))]
            waiting.extendleft(work for work in reversed(head) if id(work) not in taken)
        return batch

    def _isolate(self, run: Callable[[list[Work]], None], batch: list[Work]) -> None:
        """A batch that the engine fails on is run row by row: whose fault is it?"""
        try:
            run(batch)
        except EngineFailed as error:
            if len(batch) == 1:
                self._fail(batch[0], error)
            else:
                for work in batch:
                    self._isolate(run, [work])

    def _compute(self, batch: list[Work]) -> None:
        for work, result in zip(batch, self._engine.run(batch), strict=True):
            self._take(work, result)

    def _take(self, work: Work, result: Any) -> None:
        opened, request = work.open, work.request
        opened.results[work.at] = result
        opened.num_left -= 1
        if opened.num_left:
            return
        try:
            output = self._finish(request.item.kind, opened, request.params)
        except LLMOSError as error:
            output = ItemOutput(opened.item.index, error=error.to_info())
        answer(request, output)

    def _fail(self, work: Work, error: LLMOSError) -> None:
        """Its item, once: other rows of it may be in this very batch."""
        opened, request = work.open, work.request
        if opened.num_left <= 0:
            return
        opened.num_left = -len(opened.results)
        drop_item(request, opened)
        answer(request, ItemOutput(opened.item.index, error=error.to_info()))


def _usage(request: Request) -> Usage:
    return Usage(prompt_tokens=request.cost, completion_tokens=request.num_made)
