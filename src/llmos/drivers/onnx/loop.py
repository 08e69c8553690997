"""Requests of items over an engine that computes rows: who waits, who is said what. No engine here.

A step is one batch. There is no state of a request worth keeping but which of its items are
answered, so a suspended one is computed again from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from llmos.abi.events import Aborted, Event, Finished, FinishReason, ItemOutput, Outputs
from llmos.abi.inference import Usage, WorkItem
from llmos.drivers.encoder import payload
from llmos.drivers.encoder.batch import pick
from llmos.drivers.encoder.limits import LIMITS
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
    """What computes: `most_tokens` of a batch with padding, the results of its rows, and an item's
    answer of them. `run` raises EngineFailed, `finish` any of ours."""

    @property
    def most_tokens(self) -> int: ...

    def run(self, batch: Sequence[Work]) -> list[Any]: ...

    def finish(self, kind: str, opened: Open, params: dict[str, Any]) -> ItemOutput: ...


class ItemLoop:
    """The requests of one engine."""

    def __init__(self, engine: Engine, kinds: list[str]) -> None:
        self._engine = engine
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
        """Compute one batch, and say which items it completed."""
        if batch := self._next_batch():
            self._compute(batch)
        events, self._outbox = self._outbox, []
        for request in list(self._requests.values()):
            if request.ready:
                events.append(Outputs(request.request_id, request.ready))
                request.ready = []
            if request.is_over:
                del self._requests[request.request_id]
                events.append(Finished(request.request_id, FinishReason.STOP, _usage(request)))
        return events

    def _next_batch(self) -> list[Work]:
        works = in_turns(self._requests.values(), LIMITS.look_rows)
        if not works:
            return []
        lengths = [work.row.length for work in works]
        batch = [works[i] for i in pick(lengths, LIMITS, self._engine.most_tokens)]
        taken = set(map(id, batch))
        for request in {id(work.request): work.request for work in batch}.values():
            left = [work for work in request.waiting if id(work) not in taken]
            request.waiting.clear()
            request.waiting.extend(left)
        return batch

    def _compute(self, batch: list[Work]) -> None:
        """A batch that the engine fails on is computed row by row: whose fault is it?"""
        try:
            results = self._engine.run(batch)
        except EngineFailed as error:
            if len(batch) == 1:
                self._fail(batch[0], error)
            else:
                for work in batch:
                    self._compute([work])
            return
        for work, result in zip(batch, results, strict=True):
            self._take(work, result)

    def _take(self, work: Work, result: Any) -> None:
        opened, request = work.open, work.request
        opened.results[work.at] = result
        opened.num_left -= 1
        if opened.num_left:
            return
        try:
            output = self._engine.finish(request.item.kind, opened, request.params)
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
    return Usage(prompt_tokens=request.cost)
