"""`abi.Driver` over onnxruntime, for kinds of work that are answered item by item."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import Capabilities, Health, LoadReport, MemoryReport, ReplicaSpec
from llmos.abi.events import Event
from llmos.abi.inference import WorkItem
from llmos.drivers.encoder.kinds import Kind
from llmos.drivers.encoder.loop import ItemLoop
from llmos.drivers.onnx.session import Session
from llmos.drivers.onnx.speech_engine import KIND_SPEECH, open_speech
from llmos.drivers.onnx.text_engine import open_text
from llmos.drivers.resident import read_resident
from llmos.errors import EngineFailed, LoadFailed, SnapshotRejected
from llmos.weights.onnx_inspection import SILERO, inspect_onnx, select_onnx

ROOM_BYTES = 192 << 20
"""More than the arrays of a batch take, and what the engine keeps of them."""

KINDS = [
    *(Kind.CLASSIFY, Kind.ZERO_SHOT, Kind.RERANK, Kind.TOKENS, Kind.ANSWER, Kind.EMBED),
    KIND_SPEECH,
]


class OnnxDriver:
    """One model; its requests are lists of items, each answered whole."""

    capabilities = Capabilities(
        driver="onnx", kinds=[str(kind) for kind in KINDS], formats=["onnx"]
    )

    def __init__(self) -> None:
        self._loop: ItemLoop | None = None
        self._weights_bytes = 0
        self._bound_bytes = 0

    def load(self, spec: ReplicaSpec, progress: Callable[[float, str], None]) -> LoadReport:
        """Raises ModelRejected, LoadFailed."""
        for name in spec.options:
            raise LoadFailed(f"the onnx driver has no option {name[:80]}")
        if spec.deterministic:
            raise LoadFailed("the onnx driver has no deterministic mode")
        progress(0.0, "weights")
        self._loop = self._open(Path(spec.folder), spec.num_threads)
        self._bound_bytes = read_resident().rss_bytes + ROOM_BYTES
        progress(1.0, "ready")
        return LoadReport(
            dtype="",
            device="cpu",
            deterministic=False,
            context_length=spec.context_length,
            num_slots=spec.num_slots,
            memory=self.memory(),
        )

    def _open(self, folder: Path, num_threads: int) -> ItemLoop:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        name = select_onnx(names)
        if name is None:
            raise LoadFailed(f"{folder.name}: there is no ONNX file")
        facts = inspect_onnx(folder, names, name)
        self._weights_bytes = facts.weights_bytes
        session = Session(folder / name, num_threads)
        if facts.architecture == SILERO:
            return open_speech(session)
        return open_text(folder, session)

    def unload(self) -> None:
        """Forget the model and every request. Idempotent."""
        self._loop = None

    def submit(self, item: WorkItem) -> None:
        """Raises UserError for what cannot be honoured."""
        self._model().submit(item)

    def step(self) -> list[Event]:
        """One batch."""
        return self._model().step()

    def wait_s(self) -> float | None:
        """0 while anybody can move."""
        return 0.0 if self._loop is not None and self._loop.can_move() else None

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
        raise EngineFailed("the onnx driver takes no snapshots")

    def resume(self, item: WorkItem, snapshot: SnapshotRef) -> None:
        """Not: it makes none."""
        raise SnapshotRejected("the onnx driver takes no snapshots")

    def park(self) -> MemoryReport:
        """Not: see `capabilities`."""
        raise EngineFailed("the onnx driver does not park")

    def unpark(self) -> MemoryReport:
        """As `park`."""
        raise EngineFailed("the onnx driver does not park")

    def attach(self, program: str, budget: dict[str, float]) -> None:
        """Not: see `capabilities`."""
        raise EngineFailed("the onnx driver attaches no programs")

    def health(self) -> Health:
        """Counts of requests."""
        if self._loop is None:
            return Health(ok=False, detail="no model is loaded")
        num_running, num_paused = self._loop.counts()
        return Health(True, num_running, num_paused)

    def memory(self) -> MemoryReport:
        """Measured now."""
        now = read_resident()
        return MemoryReport(
            rss_bytes=now.rss_bytes,
            weights_bytes=self._weights_bytes,
            bound_bytes=max(now.rss_bytes, self._bound_bytes),
            peak_bytes=now.peak_bytes,
        )

    def _model(self) -> ItemLoop:
        if self._loop is None:
            raise EngineFailed("no model is loaded")
        return self._loop
