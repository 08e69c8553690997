"""`abi.Driver` over models that answer item by item: rows of all requests share batches by length.

A step is one batch, or one token of the texts that are being made. There is no state of a request
worth keeping but which of its items are answered, so a suspended one is computed again from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import Capabilities, Health, LoadReport, MemoryReport, ReplicaSpec
from llmos.abi.events import Aborted, Event, Finished, FinishReason, ItemOutput, Outputs
from llmos.abi.inference import Usage, WorkItem
from llmos.drivers.encoder import payload
from llmos.drivers.encoder.batch import pick
from llmos.drivers.encoder.compute import Computer
from llmos.drivers.encoder.decode import Decoder, num_beams_of
from llmos.drivers.encoder.finish import Finisher
from llmos.drivers.encoder.kinds import WRITING, Kind
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.load import load_model
from llmos.drivers.encoder.memory import Accounts
from llmos.drivers.encoder.words import Words
from llmos.drivers.encoder.work import (
    Request,
    Work,
    answer,
    drop_item,
    in_turns,
    num_given,
    open_request,
)
from llmos.drivers.encoder.writers import Writers
from llmos.drivers.native.machine import num_cores
from llmos.errors import (
    Conflict,
    EngineFailed,
    InvalidRequest,
    LLMOSError,
    LoadFailed,
    SnapshotRejected,
    UnsupportedParameter,
)


class EncoderDriver:
    """One model; its requests are lists of items, each answered whole."""

    capabilities = Capabilities(
        driver="encoder", kinds=[kind.value for kind in Kind], formats=["safetensors"]
    )

    def __init__(self) -> None:
        self._computer: Computer | None = None
        self._requests: dict[str, Request] = {}
        self._outbox: list[Event] = []
        self._num_submitted = 0
        self._writers: Writers | None = None

    # life

    def load(self, spec: ReplicaSpec, progress: Callable[[float, str], None]) -> LoadReport:
        """Raises ModelRejected, LoadFailed."""
        if spec.options:
            raise LoadFailed(f"the encoder driver has no option {', '.join(sorted(spec.options))}")
        if spec.deterministic:
            raise LoadFailed("the encoder driver has no deterministic mode")
        torch.set_num_threads(spec.num_threads or max(1, num_cores() - 1))
        progress(0.0, "weights")
        loaded = load_model(spec)
        progress(0.9, "tokenizer")
        has_words = (loaded.folder / "tokenizer.json").is_file()
        words = Words(loaded.folder) if has_words else None
        self._kinds = loaded.purpose.kinds
        self._finisher = Finisher(loaded, words)
        self._accounts = Accounts(loaded)
        has_decoder = loaded.purpose.head in WRITING
        self._writers = Writers(Computer(loaded), Decoder(loaded)) if has_decoder else None
        self._computer = Computer(loaded)
        progress(1.0, "ready")
        return LoadReport(
            dtype=str(loaded.dtype).removeprefix("torch."),
            device=str(loaded.device),
            deterministic=False,
            context_length=spec.context_length,
            num_slots=spec.num_slots,
            memory=self.memory(),
        )

    def unload(self) -> None:
        """Forget the model and every request. Idempotent."""
        if self._computer is not None:
            self._computer = None
            del self._finisher, self._accounts
            self._requests.clear()
            self._outbox.clear()
            self._writers = None

    def park(self) -> MemoryReport:
        """Not: see `capabilities`."""
        raise EngineFailed("unsupported: the encoder driver does not park")

    def unpark(self) -> MemoryReport:
        """As `park`."""
        raise EngineFailed("unsupported: the encoder driver does not park")

    # requests

    def submit(self, item: WorkItem) -> None:
        """Raises UserError for what cannot be honoured."""
        self._model()
        if item.kind not in self._kinds:
            raise UnsupportedParameter(f"kind {item.kind!r} is not supported", param="kind")
        for name in ("adapter", "grammar", "deterministic"):
            if getattr(item, name):
                raise UnsupportedParameter(f"{name} is not supported by this model", param=name)
        if item.options:
            unknown = ", ".join(sorted(item.options))
            raise UnsupportedParameter(f"there is no option {unknown}", param="llmos.driver")
        if item.request_id in self._requests:
            raise Conflict(f"{item.request_id} is here already")
        try:
            given = payload.decode(item.payload)
        except ValueError as error:
            raise InvalidRequest(f"the request was not prepared for this driver: {error}") from None
        self._num_submitted += 1
        request = open_request(item, given, self._num_submitted)
        self._requests[item.request_id] = request

    def pause(self, request_id: str) -> None:
        """From the next step on."""
        if request := self._requests.get(request_id):
            request.is_paused = True

    def unpause(self, request_id: str) -> None:
        """From the next step on."""
        if request := self._requests.get(request_id):
            request.is_paused = False

    def abort(self, request_id: str, reason: str) -> None:
        """The next step tells."""
        if request := self._requests.pop(request_id, None):
            self._outbox.append(Aborted(request_id, reason, _usage(request)))
            if self._writers is not None:
                self._writers.forget(request)

    def suspend(self, request_id: str, folder: str = "") -> SnapshotRef:
        """Not: a request is computed again from the items that are answered."""
        raise EngineFailed("unsupported: the encoder driver takes no snapshots")

    def resume(self, item: WorkItem, snapshot: SnapshotRef) -> None:
        """Not: it makes none."""
        raise SnapshotRejected("the encoder driver takes no snapshots")

    def attach(self, program: str, budget: dict[str, float]) -> None:
        """Not yet: see `capabilities`."""
        raise EngineFailed("unsupported: the encoder driver attaches no programs")

    # work

    def wait_s(self) -> float | None:
        """0 while anybody can move."""
        moving = self._outbox or any(
            request.ready or (request.waiting and not request.is_paused) or request.is_over
            for request in self._requests.values()
        )
        if self._writers is not None:
            moving = moving or self._writers.can_advance
        return 0.0 if moving else None

    def step(self) -> list[Event]:
        """Compute one batch, and say which items it completed."""
        computer = self._model()
        if self._writers is None:
            if batch := self._next_batch(computer):
                self._compute(computer, batch)
        else:
            self._write(self._writers, computer)
        events, self._outbox = self._outbox, []
        for request in list(self._requests.values()):
            if request.ready:
                events.append(Outputs(request.request_id, request.ready))
                request.ready = []
            if request.is_over:
                del self._requests[request.request_id]
                events.append(Finished(request.request_id, FinishReason.STOP, _usage(request)))
        return events

    def _next_batch(self, computer: Computer) -> list[Work]:
        works = in_turns(self._requests.values(), LIMITS.look_rows)
        if not works:
            return []
        limits = computer.limits
        if self._writers is not None:
            limits = self._writers.limits(works[0])
        chosen = pick([work.row.length for work in works], limits, computer.most_tokens)
        # of what is no text there is no padding, and beams of one batch are equally many
        alike = (works[0].row.shape, num_beams_of(works[0]))
        batch = [works[i] for i in chosen if (works[i].row.shape, num_beams_of(works[i])) == alike]
        taken = set(map(id, batch))
        for request in {id(work.request): work.request for work in batch}.values():
            waiting = request.waiting  # what is taken lies among the first: the rest stays
            head = [waiting.popleft() for _ in range(min(len(waiting), LIMITS.look_rows))]
            waiting.extendleft(work for work in reversed(head) if id(work) not in taken)
        return batch

    def _write(self, writers: Writers, computer: Computer) -> None:
        """A token for everybody who writes, and a group more where there is room for one."""
        if writers.has_room and (batch := self._next_batch(computer)):
            self._begin(writers, batch)
        for work, result in writers.advance():
            if isinstance(result, EngineFailed):
                self._fail(work, result)
            else:
                work.request.num_made += len(result[0]) - num_given(work.open)
                self._take(work, result)

    def _begin(self, writers: Writers, batch: list[Work]) -> None:
        """As `_compute`: who breaks the encoder breaks it alone."""
        try:
            writers.begin(batch)
        except EngineFailed as error:
            if len(batch) == 1:
                self._fail(batch[0], error)
                return
            for work in batch:
                self._begin(writers, [work])

    def _compute(self, computer: Computer, batch: list[Work]) -> None:
        """A batch that the engine fails on is computed row by row: whose fault is it?"""
        try:
            results = computer.run(batch)
        except EngineFailed as error:
            if len(batch) > 1:
                for work in batch:
                    self._compute(computer, [work])
            else:
                self._fail(batch[0], error)
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
            output = self._finisher.finish(request.item.kind, opened, request.params)
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

    # state

    def health(self) -> Health:
        """Counts of requests."""
        if self._computer is None:
            return Health(ok=False, detail="no model is loaded")
        num_paused = sum(request.is_paused for request in self._requests.values())
        return Health(True, len(self._requests) - num_paused, num_paused)

    def memory(self) -> MemoryReport:
        """Measured now."""
        return self._accounts.report()

    def _model(self) -> Computer:
        if self._computer is None:
            raise EngineFailed("no model is loaded")
        return self._computer


def _usage(request: Request) -> Usage:
    return Usage(prompt_tokens=request.cost, completion_tokens=request.num_made)
