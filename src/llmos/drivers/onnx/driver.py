"""`abi.Driver` over onnxruntime, for kinds of work that are answered item by item."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from llmos.abi.driver import Capabilities, MemoryReport, ReplicaSpec
from llmos.drivers.encoder.driver import EncoderDriver, Opened
from llmos.drivers.encoder.finish import Finisher
from llmos.drivers.encoder.kinds import Kind, find_purpose
from llmos.drivers.encoder.pooling import Pooling, read_pooling
from llmos.drivers.encoder.words import Words
from llmos.drivers.onnx.engines import KIND_SPEECH, SpeechEngine, TextEngine
from llmos.drivers.onnx.session import Session
from llmos.drivers.resident import read_resident
from llmos.errors import LoadFailed, ModelRejected
from llmos.weights.labels import find_labels
from llmos.weights.onnx_inspection import SILERO, inspect_onnx, select_onnx

ROOM_BYTES = 192 << 20
"""More than the arrays of a batch take, and what the engine keeps of them."""

KINDS = [
    *(Kind.CLASSIFY, Kind.ZERO_SHOT, Kind.RERANK, Kind.TOKENS, Kind.ANSWER, Kind.EMBED),
    KIND_SPEECH,
]


class OnnxDriver(EncoderDriver):
    """As for any model that answers item by item; only who computes is another."""

    capabilities = Capabilities(
        driver="onnx", kinds=[str(kind) for kind in KINDS], formats=["onnx"]
    )

    def _open(self, spec: ReplicaSpec, progress: Callable[[float, str], None]) -> Opened:
        folder = Path(spec.folder)
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        name = select_onnx(names)
        if name is None:
            raise LoadFailed(f"{folder.name}: there is no ONNX file")
        facts = inspect_onnx(folder, names, name)
        progress(0.0, "weights")
        session = Session(folder / name, spec.num_threads)
        progress(0.9, "tokenizer")
        accounts = _Accounts(facts.weights_bytes)
        if facts.architecture == SILERO:
            speech = SpeechEngine(session)
            return Opened(speech, speech.finish, accounts.report, [KIND_SPEECH], "", "cpu")
        return _open_text(folder, session, accounts)


class _Model(NamedTuple):
    config: Any
    labels: list[str]
    pooling: Pooling


class _Accounts:
    """Made where the process is at rest: loaded, nothing run."""

    def __init__(self, weights_bytes: int) -> None:
        self._weights_bytes = weights_bytes
        self._bound_bytes = read_resident().rss_bytes + ROOM_BYTES

    def report(self) -> MemoryReport:
        now = read_resident()
        return MemoryReport(
            rss_bytes=now.rss_bytes,
            weights_bytes=self._weights_bytes,
            bound_bytes=max(now.rss_bytes, self._bound_bytes),
            peak_bytes=now.peak_bytes,
        )


def _open_text(folder: Path, session: Session, accounts: _Accounts) -> Opened:
    raw: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    architecture = str((raw.get("architectures") or [""])[0])
    purpose = find_purpose(
        architecture, find_labels(raw), pools=(folder / "modules.json").is_file()
    )
    if purpose is None:
        raise ModelRejected(f"config.json: the onnx driver does not read {architecture}")
    labels = find_labels(raw) or [str(i) for i in range(int(raw.get("num_labels") or 2))]
    model = _Model(SimpleNamespace(**raw), labels, read_pooling(folder))
    engine = TextEngine(
        session,
        purpose.head,
        model.pooling,
        pad=max(0, int(raw.get("pad_token_id") or 0)),
        num_types=int(raw.get("type_vocab_size") or 0),
    )
    finisher = Finisher(model, Words(folder))
    return Opened(engine, finisher.finish, accounts.report, purpose.kinds, "", "cpu")
