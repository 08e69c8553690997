"""`abi.Driver` over decoder-only Transformers models: requests join, step by step, and leave.

Who runs the model is a `Runner`: kernels of ours where they know the architecture and the weights
are in host memory, torch everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import Capabilities, Health, LoadReport, MemoryReport, ReplicaSpec
from llmos.abi.events import Aborted, Event
from llmos.abi.inference import WorkItem
from llmos.abi.registry import AdapterForm
from llmos.drivers.adapters.folder import Adapted, open_adapted
from llmos.drivers.items import check_room
from llmos.drivers.native.eager import EagerRunner
from llmos.drivers.native.failures import mapped
from llmos.drivers.native.fused.opening import Unsupported, open_fused
from llmos.drivers.native.items import check_item
from llmos.drivers.native.request import Request
from llmos.drivers.native.runner import Runner
from llmos.drivers.native.sampling import RowSampler
from llmos.drivers.native.snapshot import Snapshots
from llmos.drivers.resident import read_resident
from llmos.drivers.seats import Seats
from llmos.drivers.text.detokenize import Decoding, Detokenizer
from llmos.drivers.text.folder import read_decoding
from llmos.drivers.text.grammar import GrammarsOf
from llmos.drivers.text.stop import StopStrings
from llmos.errors import (
    Conflict,
    EngineFailed,
    LoadFailed,
    NotFound,
)

_ENGINES = ("auto", "fused", "torch")
_OPTIONS = {"engine": _ENGINES, "guesses": (True, False), "compile": (True, False)}


class NativeDriver:
    """One model, at most `num_slots` requests in its batch; more wait inside, in order."""

    capabilities = Capabilities(
        driver="native",
        kinds=["generate"],
        formats=["safetensors"],
        snapshots=True,
        parks=True,
        drafts=True,
        deterministic=True,
        features=["grammar", "logit_bias", "logprobs", "prompt_logprobs"],
        adapters=[*AdapterForm],
    )

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._num_submitted = 0
        self._outbox: list[Event] = []

    # life

    def load(self, spec: ReplicaSpec, progress: Callable[[float, str], None]) -> LoadReport:
        """Raises ModelRejected, LoadFailed."""
        _check_options(spec.options)
        progress(0.0, "weights")
        runner = _open_runner(spec)
        progress(0.8, "tokenizer")
        self._decoding = _find_decoding(Path(spec.folder))
        self._seats = Seats(runner)
        info = runner.info
        self._grammars = GrammarsOf(Path(spec.folder), info.vocab_size, info.eos_ids)
        self._snapshots = Snapshots(spec, runner, self._decoding, self._grammars)
        self._runner = runner
        self._exact_by_default = (
            info.exact_by_default if spec.deterministic is None else spec.deterministic
        )
        progress(1.0, "ready")
        return LoadReport(
            dtype=info.dtype,
            device=info.device,
            deterministic=self._exact_by_default,
            context_length=info.context_length,
            num_slots=spec.num_slots,
            memory=self.memory(),
            warnings=list(info.warnings),
            engine=f"{info.engine} ({info.why})",
        )

    def unload(self) -> None:
        """Forget the model and every request. Idempotent."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None
            del self._seats, self._snapshots, self._decoding, self._grammars
            self._outbox.clear()

    def park(self) -> MemoryReport:
        """Without KV and weights until `unpark`. Raises Conflict."""
        runner = self._model()
        if len(self._seats) or self._outbox:
            raise Conflict("a request is in the batch")
        runner.park()
        return self.memory()

    def unpark(self) -> MemoryReport:
        """Raises LoadFailed, ModelRejected; then it stays parked."""
        self._model().unpark()
        return self.memory()

    # requests

    def submit(self, item: WorkItem) -> None:
        """Raises UserError for what cannot be honoured."""
        info = self._model().info
        prompt, generated = check_item(item, info.vocab_size)
        if self._seats.find(item.request_id) is not None:
            raise Conflict(f"{item.request_id} is in the batch already")
        wanted = check_room(item, len(prompt), len(generated), info.context_length)
        exact = self._exact_by_default if item.deterministic is None else item.deterministic
        request = Request(
            item=item,
            order=self._num_submitted + 1,
            prompt=[*info.virtual, *prompt],
            num_virtual=len(info.virtual),
            max_new=wanted,
            eos_ids=frozenset() if item.sampling.ignore_eos else info.eos_ids,
            exact=exact,
            sampler=RowSampler(
                item.sampling,
                prompt,
                generated=generated,
                grammar=self._grammars.start(item.grammar),
            ),
            stops=StopStrings(item.sampling.stop),
            detokenizer=self._detokenizer(item, prompt),
            piece_of=self._piece_of,
        )
        ended = request.replay(generated, exact=info.engine == "fused")
        if error := request.sampler.error:
            raise error
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
        if self._runner is None:
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
        with mapped():
            snapshot = self._snapshots.write(request, folder)
        self._seats.remove(request)
        return snapshot

    def resume(self, item: WorkItem, snapshot: SnapshotRef) -> None:
        """Raises SnapshotRejected, ContextLengthExceeded, Conflict, UserError as `submit` does."""
        info = self._model().info
        prompt, _ = check_item(item, info.vocab_size)
        if self._seats.find(item.request_id) is not None:
            raise Conflict(f"{item.request_id} is in the batch already")
        with mapped():
            request = self._snapshots.read(
                item, snapshot, [*info.virtual, *prompt], self._num_submitted + 1
            )
        if request.scores_prompt:
            request.reread()
        self._num_submitted += 1
        self._seats.add(request)
        self._snapshots.shelf.forget(item.request_id)

    def attach(self, program: str, budget: dict[str, float]) -> None:
        """Not yet: see `capabilities`."""
        raise EngineFailed("unsupported: the native driver attaches no programs")

    def _detokenizer(self, item: WorkItem, prompt: list[int]) -> Detokenizer | None:
        return None if self._decoding is None else self._decoding.start(prompt, item.shown)

    def _piece_of(self, token_id: int) -> bytes:
        return b"" if self._decoding is None else self._decoding.piece(token_id)

    # work

    def wait_s(self) -> float | None:
        """0 while anybody can move."""
        return 0.0 if self._outbox or not self._seats.idle else None

    def step(self) -> list[Event]:
        """Seat who waits, let the runner do a step, and say what it brought."""
        runner = self._model()
        events, self._outbox = self._outbox, []
        for request, error in self._seats.fill():
            events.append(request.fail(error))
        for request, drawn in runner.advance(self._seats.running()):
            if refused := request.sampler.error:
                self._seats.remove(request)
                events.append(request.fail(refused))
                continue
            if isinstance(drawn, EngineFailed):
                self._seats.remove(request, broken=True)
                events.append(request.fail(drawn))
                continue
            made = request.accept(drawn)
            events += made
            if len(made) > 1:
                self._seats.remove(request)
        return events

    # state

    def health(self) -> Health:
        """Counts of requests in the batch and of paused ones; who waits is told in words, and what
        the engine does beside the steps."""
        if self._runner is None:
            return Health(ok=False, detail="no model is loaded")
        num_paused = sum(request.paused for request in self._seats)
        num_running = len(self._seats.running())
        num_waiting = len(self._seats) - num_running - num_paused
        waiting = f"{num_waiting} waiting" if num_waiting else ""
        runner = self._runner
        detail = ", ".join(filter(None, (waiting, runner.progress())))
        return Health(
            True, num_running, num_paused, detail, runner.num_guessed, runner.num_accepted
        )

    def memory(self) -> MemoryReport:
        """Measured now."""
        if self._runner is None:
            now = read_resident()
            return MemoryReport(now.rss_bytes, bound_bytes=now.rss_bytes, peak_bytes=now.peak_bytes)
        return self._runner.memory(list(self._seats))

    def _model(self) -> Runner:
        if self._runner is None:
            raise EngineFailed("no model is loaded")
        return self._runner


def _check_options(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value not in _OPTIONS.get(name, ()):
            known = "; ".join(f"{n}: {', '.join(map(str, v))}" for n, v in _OPTIONS.items())
            raise LoadFailed(f"the native driver has no option {name}={value!r} ({known})")
    if options.get("compile") and options.get("engine") != "torch":
        raise LoadFailed("compile=True is of the torch engine: ask for engine='torch' with it")


def _open_runner(spec: ReplicaSpec) -> Runner:
    """Raises LoadFailed, ModelRejected, DiskFull."""
    engine, why_torch = spec.options.get("engine", "auto"), "asked for"
    spec, adapted = _with_adapters(spec)
    if engine != "torch":
        try:
            if adapted is not None and adapted.form is not AdapterForm.MERGED:
                raise Unsupported(f"its kernels take no {adapted.adapter.method} adapters")
            return open_fused(spec, guesses=spec.options.get("guesses", True))
        except Unsupported as error:
            why_torch = str(error)
            if engine == "fused":
                raise LoadFailed(f"the fused engine does not run this model: {error}") from error
    if spec.draft is not None:
        raise LoadFailed(
            f"no draft model with torch, which runs this model ({why_torch}): "
            "only the fused engine guesses ahead"
        )
    return EagerRunner(spec, why_torch, adapted)


def _with_adapters(spec: ReplicaSpec) -> tuple[ReplicaSpec, Adapted | None]:
    """With folders that hold whole models; what the model's adapter adds otherwise."""
    adapted = open_adapted(Path(spec.folder), spec.scratch, spec.min_free_bytes)
    if adapted is not None:
        spec = msgspec.structs.replace(spec, folder=str(adapted.folder))
    if spec.draft is None:
        return spec, adapted
    guessing = open_adapted(Path(spec.draft.folder), spec.scratch, spec.min_free_bytes)
    if guessing is None:
        return spec, adapted
    if guessing.form is not AdapterForm.MERGED:
        method = guessing.adapter.method
        raise LoadFailed(f"{spec.draft.ref} is a {method} adapter, which does not guess ahead")
    draft = msgspec.structs.replace(spec.draft, folder=str(guessing.folder))
    return msgspec.structs.replace(spec, draft=draft), adapted


def _find_decoding(folder: Path) -> Decoding | None:
    return read_decoding(folder) if (folder / "tokenizer.json").is_file() else None
