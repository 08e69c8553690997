"""`abi.Driver` over llama.cpp: joins, reads prompts, decodes, draws, one pass a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import Capabilities, Health, LoadReport, MemoryReport, ReplicaSpec
from llmos.abi.events import Aborted, Event
from llmos.abi.inference import WorkItem
from llmos.drivers.gguf.engine import Engine, Logits, Rows
from llmos.drivers.gguf.library import library
from llmos.drivers.gguf.limits import LIMITS
from llmos.drivers.gguf.memory import Accounts
from llmos.drivers.gguf.request import Request
from llmos.drivers.gguf.sequences import Sequences
from llmos.drivers.gguf.snapshot import Snapshots
from llmos.drivers.items import check_ids, check_plain, check_room, read_tokens
from llmos.drivers.resident import read_resident
from llmos.drivers.sampling.params import check
from llmos.drivers.sampling.rows import RowSampler
from llmos.drivers.seats import Seats
from llmos.drivers.text.answer import Answer
from llmos.drivers.text.stop import StopStrings
from llmos.errors import (
    Conflict,
    EngineFailed,
    InvalidRequest,
    LLMOSError,
    LoadFailed,
    ModelRejected,
    NotFound,
    StorageError,
    UnsupportedParameter,
)
from llmos.weights import ModelFacts, inspect


class GGUFDriver:
    """One model, at most `num_slots` requests in its batch; more wait inside, in order."""

    capabilities = Capabilities(
        driver="gguf",
        kinds=["generate"],
        formats=["gguf"],
        snapshots=True,
        deterministic=True,
    )

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._outbox: list[Event] = []
        self._num_submitted = 0
        self._prefill_s_per_token = 0.0

    # life

    def load(self, spec: ReplicaSpec, progress: Callable[[float, str], None]) -> LoadReport:
        """Raises ModelRejected, LoadFailed."""
        if spec.options:
            raise LoadFailed(f"the gguf driver has no options ({', '.join(spec.options)})")
        if spec.device != "cpu":
            raise LoadFailed(f"device {spec.device!r}: the gguf driver computes on the CPU")
        progress(0.0, "header")
        folder = Path(spec.folder)
        facts = _inspect(folder)
        if spec.dtype not in {"auto", facts.dtype}:
            raise LoadFailed(f"dtype {spec.dtype!r}: the file's weights are {facts.dtype}")
        try:
            library()
        except LLMOSError as error:
            raise LoadFailed(error.message) from error
        library_bytes = read_resident().file_bytes
        progress(0.05, "weights")
        engine = Engine(
            folder / facts.files[0],
            num_slots=spec.num_slots,
            context_length=min(spec.context_length, facts.context_length),
            num_threads=max(1, spec.num_threads),
            kv_dtype=facts.kv_dtype,
            progress=lambda fraction: progress(0.05 + 0.8 * fraction, "weights"),
        )
        progress(0.9, "first pass")
        self._start(spec, facts, engine, library_bytes)
        progress(1.0, "ready")
        return LoadReport(
            dtype=facts.dtype,
            device="cpu",
            deterministic=self._exact_by_default,
            context_length=self._context_length,
            num_slots=spec.num_slots,
            memory=self.memory(),
        )

    def _start(
        self, spec: ReplicaSpec, facts: ModelFacts, engine: Engine, library_bytes: int
    ) -> None:
        self._context_length = min(spec.context_length, facts.context_length)
        self._exact_by_default = bool(spec.deterministic)  # its cost is not in a committed table
        try:
            engine.warm_up()
        except EngineFailed as error:
            engine.close()
            raise LoadFailed(error.message) from error
        self._snapshots = Snapshots(spec, facts, engine, self._context_length)
        self._seats = Seats(Sequences(engine))
        self._accounts = Accounts(
            weights_bytes=engine.weights_bytes,
            library_bytes=library_bytes,
            kv_token_bytes=facts.kv_bytes_per_token,
            kv_reserved_bytes=facts.kv_bytes_per_token * engine.slot_tokens * spec.num_slots,
            vocab_size=engine.vocab.size,
            num_slots=spec.num_slots,
        )
        self._engine = engine

    def unload(self) -> None:
        """Forget the model and every request. Idempotent."""
        if self._engine is not None:
            del self._seats, self._snapshots, self._accounts
            self._engine.close()
            self._engine = None
            self._outbox.clear()

    def park(self) -> MemoryReport:
        """Not declared: see `capabilities`."""
        raise EngineFailed("unsupported: the gguf driver does not park")

    def unpark(self) -> MemoryReport:
        """Not declared: see `capabilities`."""
        raise EngineFailed("unsupported: the gguf driver does not park")

    # requests

    def submit(self, item: WorkItem) -> None:
        """Raises UserError for what cannot be honoured."""
        prompt, generated = self._check(item)
        wanted = check_room(item, len(prompt), len(generated), self._context_length)
        exact = self._exact_by_default if item.deterministic is None else item.deterministic
        request = Request(
            item=item,
            order=self._num_submitted + 1,
            to_read=prompt + generated,
            exact=exact,
            sampler=RowSampler(item.sampling, prompt, generated=generated),
            answer=Answer(
                item=item,
                num_prompt=len(prompt),
                max_new=wanted,
                eos_ids=self._snapshots.eos_ids(item),
                stops=StopStrings(item.sampling.stop),
                detokenizer=self._snapshots.begin(item, prompt),
            ),
            only_exact=exact and not generated,
        )
        ended = request.answer.replay(generated, request.only_exact)
        self._num_submitted += 1
        if ended is None:
            self._seats.add(request)
        else:
            self._outbox.append(ended)

    def _check(self, item: WorkItem) -> tuple[list[int], list[int]]:
        """Tokens of the prompt, and of the answer as far as it was drawn. Raises UserError."""
        engine = self._open()
        check_plain(item, self.capabilities.features)
        if item.options:
            unknown = ", ".join(sorted(item.options))
            raise UnsupportedParameter(
                f"the gguf driver has no option {unknown}", param="llmos.driver"
            )
        check(item.sampling)
        check_ids(item.shown, engine.vocab.size, "shown")
        prompt = read_tokens(item.tokens, engine.vocab.size, "prompt")
        if not prompt:
            raise InvalidRequest("the prompt has no tokens", param="prompt")
        if self._seats.find(item.request_id) is not None:
            raise Conflict(f"{item.request_id} is in the batch already")
        return prompt, read_tokens(item.generated, engine.vocab.size, "generated")

    def pause(self, request_id: str) -> None:
        """From the next step on."""
        if request := self._seats.find(request_id):
            self._seats.pause(request)

    def unpause(self, request_id: str) -> None:
        """From the next step on, if there is a row."""
        if request := self._seats.find(request_id):
            self._seats.unpause(request)

    def abort(self, request_id: str, reason: str) -> None:
        """The row is free at once; the next step tells."""
        if self._engine is None:
            return
        if request := self._seats.find(request_id):
            self._seats.remove(request)
            self._outbox.append(request.end(reason))
        elif usage := self._snapshots.shelf.drop(request_id):
            self._outbox.append(Aborted(request_id, reason, usage))

    def suspend(self, request_id: str, folder: str = "") -> SnapshotRef:
        """Raises NotFound, DiskFull, StorageError."""
        self._open()
        request = self._seats.find(request_id)
        if request is None:
            raise NotFound(f"{request_id} is not in the batch")
        try:
            snapshot = self._snapshots.write(request, folder)
        except EngineFailed as error:
            raise StorageError(error.message) from error
        self._seats.remove(request)
        return snapshot

    def resume(self, item: WorkItem, snapshot: SnapshotRef) -> None:
        """Raises SnapshotRejected, ContextLengthExceeded, Conflict, UserError as `submit` does."""
        prompt, _ = self._check(item)
        request = self._snapshots.read(item, snapshot, prompt, self._num_submitted + 1)
        self._num_submitted += 1
        self._seats.add(request)
        self._snapshots.shelf.forget(item.request_id)

    def attach(self, program: str, budget: dict[str, float]) -> None:
        """Not declared: see `capabilities`."""
        raise EngineFailed("unsupported: the gguf driver attaches no programs")

    # work

    def wait_s(self) -> float | None:
        """0 while anybody can move."""
        return 0.0 if self._outbox or not self._seats.idle else None

    def step(self) -> list[Event]:
        """Seat; one pass over a token of every running request and chunks of prompts; and one for
        each request that wants passes of its own."""
        self._open()
        events, self._outbox = self._outbox, []
        for request, error in self._seats.fill():
            events.append(request.fail(error))
        running = self._seats.running()
        shared = [request for request in running if not request.exact]
        self._pass(self._plan(shared), events)
        for request in running:
            if request.exact:
                self._pass([(request, _exact_rows(request))], events)
        return events

    def _plan(self, requests: list[Request]) -> list[tuple[Request, Rows]]:
        """A token of each that runs; of prompts, by class and arrival, what the bounds allow."""
        plan = [(r, _rows(r, 1)) for r in requests if not r.prefilling]
        budget = self._prefill_budget(bool(plan))
        prefilling = [request for request in requests if request.prefilling]
        for request in sorted(prefilling, key=lambda r: (-r.item.service_class, r.order)):
            if budget <= 0:
                break
            rows = _rows(request, budget)
            budget -= len(rows.tokens)
            plan.append((request, rows))
        return plan

    def _prefill_budget(self, others_run: bool) -> int:
        """How many tokens of prompts one pass may read."""
        if not others_run or not self._prefill_s_per_token:
            return LIMITS.prefill_tokens
        fitting = int(LIMITS.prefill_s / self._prefill_s_per_token)
        return max(LIMITS.min_prefill_tokens, min(fitting, LIMITS.prefill_tokens))

    def _pass(self, plan: list[tuple[Request, Rows]], events: list[Event]) -> None:
        if not plan:
            return
        engine = self._open()
        began_s = time.monotonic()
        try:
            logits = engine.decode([rows for _, rows in plan])
        except EngineFailed as error:
            for request, _ in plan:
                self._fail(request, error, events)
            return
        num_read = sum(len(rows.tokens) for request, rows in plan if request.prefilling)
        if num_read:
            self._prefill_s_per_token = (time.monotonic() - began_s) / num_read
        for request, rows in plan:
            request.num_cached += len(rows.tokens)
            request.only_exact = request.only_exact and request.exact
        self._draw([request for request, rows in plan if rows.wanted], logits, events)

    def _draw(self, requests: list[Request], logits: Logits, events: list[Event]) -> None:
        # before the first is failed: scrubbing what a NaN touched leaves no logits to draw from
        drawn = [
            request.sampler.draw(row, len(request.answer.generated))
            for request, row in zip(requests, logits, strict=True)
        ]
        for request, token in zip(requests, drawn, strict=True):
            if token is None:
                error = EngineFailed("the model's logits are not finite")
                self._fail(request, error, events)
                continue
            made = request.accept(token)
            events += made
            if len(made) > 1:
                self._seats.remove(request)

    def _fail(self, request: Request, error: EngineFailed, events: list[Event]) -> None:
        self._seats.remove(request)
        kept = [r.slot for r in self._seats if r.slot is not None and r.num_cached]
        self._open().scrub(kept)
        events.append(request.fail(error))

    # state

    def health(self) -> Health:
        """Counts of requests in the batch and of paused ones; who waits is told in words."""
        if self._engine is None:
            return Health(ok=False, detail="no model is loaded")
        num_paused = sum(request.paused for request in self._seats)
        num_running = len(self._seats.running())
        num_waiting = len(self._seats) - num_running - num_paused
        detail = f"{num_waiting} waiting" if num_waiting else ""
        return Health(True, num_running, num_paused, detail)

    def memory(self) -> MemoryReport:
        """Measured now."""
        if self._engine is None:
            now = read_resident()
            return MemoryReport(now.rss_bytes, bound_bytes=now.rss_bytes, peak_bytes=now.peak_bytes)
        copies = sum(len(r.parked) for r in self._seats if r.parked is not None)
        return self._accounts.report(sum(r.num_cached for r in self._seats), copies)

    def _open(self) -> Engine:
        if self._engine is None:
            raise EngineFailed("no model is loaded")
        return self._engine


def _inspect(folder: Path) -> ModelFacts:
    facts = inspect(folder)
    if facts.format != "gguf":
        raise ModelRejected(f"{folder.name}: {facts.format} files; the gguf driver reads GGUF")
    return facts


def _rows(request: Request, most: int) -> Rows:
    """The next tokens of a request, at most so many of its prompt."""
    assert request.slot is not None
    start = request.num_cached
    if not request.prefilling:
        return Rows(request.slot, start, request.answer.generated[-1:], wanted=True)
    end = min(len(request.to_read), start + most)
    return Rows(request.slot, start, request.to_read[start:end], end == len(request.to_read))


def _exact_rows(request: Request) -> Rows:
    """As `_rows`, chunks ending where they always do."""
    return _rows(request, LIMITS.exact_chunk - request.num_cached % LIMITS.exact_chunk)
