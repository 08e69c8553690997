"""`abi.Driver` over Transformers' models that answer item by item: `loop` has their requests."""

from __future__ import annotations

from collections.abc import Callable

import torch

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import Capabilities, Health, LoadReport, MemoryReport, ReplicaSpec
from llmos.abi.events import Event
from llmos.abi.inference import WorkItem
from llmos.abi.registry import AdapterForm
from llmos.drivers.encoder.compute import Computer
from llmos.drivers.encoder.decode import Decoder
from llmos.drivers.encoder.finish import Finisher
from llmos.drivers.encoder.kinds import WRITING, Kind
from llmos.drivers.encoder.load import Loaded, load_model
from llmos.drivers.encoder.loop import ItemLoop
from llmos.drivers.encoder.memory import Accounts
from llmos.drivers.encoder.words import Words
from llmos.drivers.encoder.writing import WritingLoop
from llmos.drivers.native.machine import num_cores
from llmos.errors import EngineFailed, LoadFailed, SnapshotRejected


class EncoderDriver:
    """One model; its requests are lists of items, each answered whole."""

    capabilities = Capabilities(
        driver="encoder",
        kinds=[kind.value for kind in Kind],
        formats=["safetensors"],
        adapters=[*AdapterForm],
    )

    def __init__(self) -> None:
        self._loop: ItemLoop | None = None

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
        loop = _open_loop(loaded)
        self._accounts = Accounts(loaded)
        self._loop = loop
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
        if self._loop is not None:
            self._loop = None
            del self._accounts

    def park(self) -> MemoryReport:
        """Not: see `capabilities`."""
        raise EngineFailed("unsupported: the encoder driver does not park")

    def unpark(self) -> MemoryReport:
        """As `park`."""
        raise EngineFailed("unsupported: the encoder driver does not park")

    # requests

    def submit(self, item: WorkItem) -> None:
        """Raises UserError for what cannot be honoured."""
        self._model().submit(item)

    def pause(self, request_id: str) -> None:
        """From the next step on."""
        self._model().set_paused(request_id, True)

    def unpause(self, request_id: str) -> None:
        """From the next step on."""
        self._model().set_paused(request_id, False)

    def abort(self, request_id: str, reason: str) -> None:
        """The next step tells."""
        self._model().abort(request_id, reason)

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
        return 0.0 if self._loop is not None and self._loop.can_move() else None

    def step(self) -> list[Event]:
        """Compute one batch, or a token of every text that is being made."""
        return self._model().step()

    # state

    def health(self) -> Health:
        """Counts of requests."""
        if self._loop is None:
            return Health(ok=False, detail="no model is loaded")
        num_running, num_paused = self._loop.counts()
        return Health(True, num_running, num_paused)

    def memory(self) -> MemoryReport:
        """Measured now."""
        return self._accounts.report()

    def _model(self) -> ItemLoop:
        if self._loop is None:
            raise EngineFailed("no model is loaded")
        return self._loop


def _open_loop(loaded: Loaded) -> ItemLoop:
    has_words = (loaded.folder / "tokenizer.json").is_file()
    finish = Finisher(loaded, Words(loaded.folder) if has_words else None).finish
    if loaded.purpose.head in WRITING:
        return WritingLoop(Computer(loaded), Decoder(loaded), finish, loaded.purpose.kinds)
    return ItemLoop(Computer(loaded), finish, loaded.purpose.kinds)
