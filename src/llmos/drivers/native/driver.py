"""`abi.Driver` over Transformers models: joins, prefills, decodes, samples, one step at a time."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import Capabilities, Health, LoadReport, MemoryReport, ReplicaSpec
from llmos.abi.events import Aborted, Event
from llmos.abi.inference import WorkItem
from llmos.drivers.native import determinism, pages, sampling
from llmos.drivers.native.batch import Batch, DecodeMode
from llmos.drivers.native.items import check_item
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.load import LoadedModel, load_model
from llmos.drivers.native.memory import Accounts
from llmos.drivers.native.queue import Seats
from llmos.drivers.native.request import Request
from llmos.drivers.native.sampling import RowSampler
from llmos.drivers.native.snapshot import Snapshots
from llmos.drivers.resident import read_resident
from llmos.drivers.text.detokenize import Decoding
from llmos.drivers.text.stop import StopStrings
from llmos.errors import (
    Conflict,
    ContextLengthExceeded,
    EngineFailed,
    InvalidRequest,
    LLMOSError,
    LoadFailed,
    NotFound,
)

_log = logging.getLogger(__name__)


class NativeDriver:
    """One model, at most `num_slots` requests in its batch; more wait inside, in order."""

    capabilities = Capabilities(
        driver="native",
        kinds=["generate"],
        formats=["safetensors"],
        snapshots=True,
        parks=True,
        deterministic=True,
    )

    def __init__(self) -> None:
        self._loaded: LoadedModel | None = None
        self._num_submitted = 0
        self._num_steps = 0
        self._owes_decode = False
        self._outbox: list[Event] = []

    # life

    def load(self, spec: ReplicaSpec, progress: Callable[[float, str], None]) -> LoadReport:
        """Raises ModelRejected, LoadFailed."""
        if spec.options:
            raise LoadFailed(f"the native driver has no options ({', '.join(spec.options)})")
        torch.set_num_threads(max(1, spec.num_threads))
        progress(0.0, "weights")
        folder = Path(spec.folder)
        loaded = load_model(
            folder, dtype=spec.dtype, device=spec.device, context_length=spec.context_length
        )
        progress(0.8, "tokenizer")
        self._decoding = _read_decoding(folder)
        progress(0.9, "kv")
        try:
            self._batch = Batch(loaded, spec.num_slots)
            # the proof also warms the kernels up
            alike = self._batch.rows_are_alike()
        except (RuntimeError, MemoryError, OSError, OverflowError) as error:
            raise LoadFailed(f"no room for the KV of {spec.num_slots} slots: {error}") from error
        if not alike:
            _log.warning("equal rows differ on this machine: deterministic requests run singly")
        fixed = alike and not loaded.mixes_rows
        self._exact_mode = DecodeMode.FIXED if fixed else DecodeMode.SINGLE
        self._seats = Seats(self._batch.kv)
        self._snapshots = Snapshots(spec, loaded, self._batch, self._exact_mode, self._decoding)
        self._loaded = loaded
        pages.trim()
        self._accounts = Accounts(loaded, self._batch.kv)
        self._exact_by_default = (
            determinism.is_default(loaded.device.type, loaded.dtype)
            if spec.deterministic is None
            else spec.deterministic
        )
        progress(1.0, "ready")
        return LoadReport(
            dtype=str(loaded.dtype).removeprefix("torch."),
            device=str(loaded.device),
            deterministic=self._exact_by_default,
            context_length=loaded.context_length,
            num_slots=spec.num_slots,
            memory=self.memory(),
        )

    def unload(self) -> None:
        """Forget the model and every request. Idempotent."""
        if self._loaded is not None:
            del self._batch, self._seats, self._snapshots, self._decoding, self._accounts
            self._loaded = None
            self._outbox.clear()

    def park(self) -> MemoryReport:
        """Without KV and weights until `unpark`. Raises Conflict."""
        loaded = self._model()
        if len(self._seats) or self._outbox:
            raise Conflict("a request is in the batch")
        if not self._accounts.parked:
            with _mapped():
                loaded.weights.park()
                self._batch.kv.give_back()
                gc.collect()  # what a load left behind holds weights, too
                pages.trim()
            self._accounts.parked = True
        return self.memory()

    def unpark(self) -> MemoryReport:
        """Raises LoadFailed, ModelRejected; then it stays parked."""
        loaded = self._model()
        if self._accounts.parked:
            loaded.weights.unpark()
            try:
                self._batch.kv.take()
            except (RuntimeError, MemoryError, OSError) as error:
                raise LoadFailed(f"no room for the KV: {error}") from error
            self._accounts.parked = False
        return self.memory()

    # requests

    def submit(self, item: WorkItem) -> None:
        """Raises UserError for what cannot be honoured."""
        loaded = self._model()
        prompt, generated = check_item(item, loaded.vocab_size)
        if self._seats.find(item.request_id) is not None:
            raise Conflict(f"{item.request_id} is in the batch already")
        room = loaded.context_length - len(prompt)
        wanted = item.sampling.max_tokens or max(1, room)
        if wanted > room:
            raise ContextLengthExceeded(
                f"{len(prompt)} prompt tokens and {wanted} to generate exceed the context of "
                f"{loaded.context_length} tokens",
                param="prompt" if room < 1 else "max_tokens",
            )
        if len(generated) > wanted:
            raise InvalidRequest(
                f"{len(generated)} tokens were generated of {wanted}", param="generated"
            )
        exact = self._exact_by_default if item.deterministic is None else item.deterministic
        request = Request(
            item=item,
            order=self._num_submitted + 1,
            prompt=prompt,
            max_new=wanted,
            eos_ids=frozenset() if item.sampling.ignore_eos else loaded.eos_ids,
            exact=exact,
            sampler=RowSampler(item.sampling, prompt, generated=generated),
            stops=StopStrings(item.sampling.stop),
            detokenizer=None if self._decoding is None else self._decoding.start(prompt),
        )
        ended = request.replay(generated)
        self._num_submitted += 1
        if ended is None:
            self._seats.add(request)
        else:
            self._outbox.append(ended)

    def pause(self, request_id: str) -> None:
        """From the next step on."""
        if request := self._seats.find(request_id):
            self._seats.pause(request)

    def unpause(self, request_id: str) -> None:
        """From the next step on, if there is a slot."""
        if request := self._seats.find(request_id):
            self._seats.unpause(request)

    def abort(self, request_id: str, reason: str) -> None:
        """The slot is free at once; the next step tells."""
        if self._loaded is None:
            return
        if request := self._seats.find(request_id):
            self._seats.remove(request)
            self._outbox.append(request.end(reason))
        elif usage := self._snapshots.shelf.drop(request_id):
            self._outbox.append(Aborted(request_id, reason, usage))

    def suspend(self, request_id: str, folder: str = "") -> SnapshotRef:
        """Raises NotFound, DiskFull, StorageError."""
        self._model()
        request = self._seats.find(request_id)
        if request is None:
            raise NotFound(f"{request_id} is not in the batch")
        with _mapped():
            snapshot = self._snapshots.write(request, folder)
        self._seats.remove(request)
        return snapshot

    def resume(self, item: WorkItem, snapshot: SnapshotRef) -> None:
        """Raises SnapshotRejected, ContextLengthExceeded, Conflict, UserError as `submit` does."""
        prompt, _ = check_item(item, self._model().vocab_size)
        if self._seats.find(item.request_id) is not None:
            raise Conflict(f"{item.request_id} is in the batch already")
        with _mapped():
            request = self._snapshots.read(item, snapshot, prompt, self._num_submitted + 1)
        self._num_submitted += 1
        self._seats.add(request)
        self._snapshots.shelf.forget(item.request_id)

    def attach(self, program: str, budget: dict[str, float]) -> None:
        """Not yet: see `capabilities`."""
        raise EngineFailed("unsupported: the native driver attaches no programs")

    # work

    def wait_s(self) -> float | None:
        """0 while anybody can move."""
        return 0.0 if self._outbox or not self._seats.idle else None

    def step(self) -> list[Event]:
        """Seat, prefill for a bounded time, decode one token of every running request.

        First tokens are not held back by a decode: those of a step leave without one, and the next
        step decodes whatever else it does.
        """
        self._model()
        events, self._outbox = self._outbox, []
        self._num_steps += 1
        self._seats.fill()
        running = self._seats.running()
        decoding = [request for request in running if not request.prefilling]
        prefilling = [request for request in running if request.prefilling]
        ready, logits = self._prefill(self._in_order(prefilling), decoding, events)
        if decoding and (self._owes_decode or not ready):
            self._owes_decode = False
            done = self._decode(decoding, events)
            if done is not None:
                ready, logits = ready + decoding, [*logits, done]
        else:
            self._owes_decode = bool(decoding)
        if ready:
            self._sample(ready, torch.cat(logits), events)
        return events

    def _in_order(self, prefilling: list[Request]) -> list[Request]:
        """Prompts by class, then arrival; by arrival alone every so many steps."""
        if self._num_steps % LIMITS.arrival_order_every == 0:
            return sorted(prefilling, key=lambda r: r.order)
        return sorted(prefilling, key=lambda r: (-r.item.service_class, r.order))

    def _prefill(
        self, requests: list[Request], decoding: list[Request], events: list[Event]
    ) -> tuple[list[Request], list[torch.Tensor]]:
        """Chunks of prompts in this order, as many as the time bound holds, at least one."""
        highest = max((request.item.service_class for request in decoding), default=None)
        began_s = time.monotonic()
        num_read = 0
        ready: list[Request] = []
        logits: list[torch.Tensor] = []
        for request in requests:
            bound_s = LIMITS.prefill_s_per_step
            if highest is not None and request.item.service_class > highest and not ready:
                bound_s = LIMITS.urgent_prefill_s_per_step
            until = began_s + bound_s
            last: torch.Tensor | None = None
            while request.prefilling and (num_read == 0 or time.monotonic() < until):
                start = request.num_cached
                end = min(len(request.to_read), start + LIMITS.prefill_chunk)
                assert request.slot is not None
                try:
                    with _mapped():
                        last = self._batch.prefill(request.slot, start, request.to_read[start:end])
                except EngineFailed as error:
                    self._fail(request, error, events)
                    break
                request.num_cached = end
                num_read += 1
            else:
                if last is not None and not request.prefilling:
                    ready.append(request)
                    logits.append(last)
            if time.monotonic() >= until:
                break
        return ready, logits

    def _decode(self, requests: list[Request], events: list[Event]) -> torch.Tensor | None:
        exact = any(request.exact for request in requests)
        slots = [request.slot for request in requests if request.slot is not None]
        try:
            with _mapped():
                logits = self._batch.decode(
                    slots,
                    [request.generated[-1] for request in requests],
                    [request.num_cached for request in requests],
                    self._exact_mode if exact else DecodeMode.PACKED,
                )
        except EngineFailed as error:
            for request in requests:
                self._fail(request, error, events)
            return None
        for request in requests:
            request.num_cached += 1
            request.only_exact = request.only_exact and exact
        return logits

    def _sample(self, requests: list[Request], logits: torch.Tensor, events: list[Event]) -> None:
        rows = [(request.sampler, len(request.generated)) for request in requests]
        try:
            with _mapped(), torch.inference_mode():
                tokens = sampling.sample(logits, rows)
        except EngineFailed as error:
            for request in requests:
                self._fail(request, error, events)
            return
        for request, token in zip(requests, tokens, strict=True):
            if token is None:
                self._fail(request, EngineFailed("the model's logits are not finite"), events)
                continue
            made = request.accept(token)
            events += made
            if len(made) > 1:
                self._seats.remove(request)

    def _fail(self, request: Request, error: EngineFailed, events: list[Event]) -> None:
        if request.slot is not None:
            # whoever gets the slot next must not meet a NaN in what is masked away
            written = request.num_cached + LIMITS.prefill_chunk
            self._batch.kv.clear(request.slot, written)
        self._seats.remove(request)
        events.append(request.fail(error))

    # state

    def health(self) -> Health:
        """Counts of requests in the batch and of paused ones; who waits is told in words."""
        if self._loaded is None:
            return Health(ok=False, detail="no model is loaded")
        num_paused = sum(request.paused for request in self._seats)
        num_running = len(self._seats.running())
        num_waiting = len(self._seats) - num_running - num_paused
        detail = f"{num_waiting} waiting" if num_waiting else ""
        return Health(True, num_running, num_paused, detail)

    def memory(self) -> MemoryReport:
        """Measured now."""
        if self._loaded is None:
            now = read_resident()
            return MemoryReport(now.rss_bytes, bound_bytes=now.rss_bytes, peak_bytes=now.peak_bytes)
        copies = sum(r.parked.size_bytes for r in self._seats if r.parked is not None)
        used = sum(r.num_cached for r in self._seats) * self._batch.kv.bytes_per_token
        return self._accounts.report(copies, used)

    def _model(self) -> LoadedModel:
        if self._loaded is None:
            raise EngineFailed("no model is loaded")
        return self._loaded


def _read_decoding(folder: Path) -> Decoding | None:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        return Decoding(Tokenizer.from_file(str(path)))
    except Exception as error:
        raise LoadFailed(f"tokenizer.json: {error}") from error


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    """Whatever the engine raises becomes EngineFailed. The one place where that happens."""
    try:
        yield
    except LLMOSError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines()
        what = text[0][:300] if text else type(error).__name__
        out = isinstance(error, torch.OutOfMemoryError | MemoryError) or "memory" in what
        raise EngineFailed(f"out of memory: {what}" if out else what) from error
