"""An export of a text encoder over batches of rows.

Shapes: B rows, L tokens, H hidden units.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from llmos.drivers.encoder.finish import Finisher
from llmos.drivers.encoder.kinds import Head, Purpose, find_purpose
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.loop import ItemLoop
from llmos.drivers.encoder.pooling import Pooling, read_pooling
from llmos.drivers.encoder.words import Words
from llmos.drivers.encoder.work import Work
from llmos.drivers.onnx.session import Session
from llmos.errors import LoadFailed, ModelRejected
from llmos.weights.labels import find_labels


class Model(NamedTuple):
    """What its configuration says."""

    config: Any
    labels: list[str]
    pooling: Pooling
    purpose: Purpose
    folder: Path


class TextEngine:
    """An export of a text encoder: what comes of its rows is what `Finisher` reads."""

    limits = LIMITS

    def __init__(self, session: Session, head: Head, model: Model) -> None:
        """Raises LoadFailed where the graph does not have what its head needs."""
        self._session = session
        self._pooling = model.pooling
        self._pad = max(0, int(getattr(model.config, "pad_token_id", 0) or 0))
        self._has_types = "token_type_ids" in session.inputs
        self._num_types = int(getattr(model.config, "type_vocab_size", 0) or 0)
        if head not in _RUNS:
            raise LoadFailed(f"an export for {head} is not supported")
        self._run, wanted = _RUNS[head]
        missing = [name for name in wanted if name not in session.outputs]
        if missing:
            has = ", ".join(session.outputs)
            raise LoadFailed(f"the export has no output {missing[0]} (it has {has})")

    def run(self, batch: Sequence[Work]) -> list[Any]:
        """The result of every row. Raises EngineFailed."""
        rows = [np.frombuffer(work.row.tokens, dtype=np.int32) for work in batch]
        lengths = [len(row) for row in rows]
        ids_BL = np.full((len(rows), max(lengths)), self._pad, dtype=np.int64)
        types_BL = np.zeros_like(ids_BL)
        for i, row in enumerate(rows):
            ids_BL[i, : len(row)] = row
            if self._num_types > 1 and batch[i].row.types:
                types_BL[i, : len(row)] = np.frombuffer(batch[i].row.types, dtype=np.uint8)
        mask_BL = np.arange(ids_BL.shape[1])[None, :] < np.array(lengths)[:, None]
        feeds = {"input_ids": ids_BL, "attention_mask": mask_BL.astype(np.int64)}
        if self._has_types:
            feeds["token_type_ids"] = types_BL
        feeds = {name: feeds[name] for name in self._session.inputs}
        return self._run(self, self._session.run(feeds), lengths, batch)

    def sequence(self, out: Any, lengths: list[int], batch: Sequence[Work]) -> list[Any]:
        """A score for each class."""
        return list(out["logits"].astype(np.float32))

    def token(self, out: Any, lengths: list[int], batch: Sequence[Work]) -> list[Any]:
        """The same of each token."""
        return [out["logits"][i, :n].astype(np.float32) for i, n in enumerate(lengths)]

    def span(self, out: Any, lengths: list[int], batch: Sequence[Work]) -> list[Any]:
        """Scores of a first token, and of a last one."""
        starts_BL, ends_BL = out["start_logits"], out["end_logits"]
        return [(starts_BL[i, :n], ends_BL[i, :n]) for i, n in enumerate(lengths)]

    def pool(self, out: Any, lengths: list[int], batch: Sequence[Work]) -> list[Any]:
        """A vector of H, and of how many tokens it is."""
        hidden_BLH = out["last_hidden_state"].astype(np.float32)
        found = []
        for i, n in enumerate(lengths):
            hidden_LH = hidden_BLH[i, :n]
            mode = batch[i].request.params["pooling"] or self._pooling.mode
            if mode == "mean":
                vector = hidden_LH.mean(axis=0)
            elif mode == "max":
                vector = hidden_LH.max(axis=0)
            else:
                vector = hidden_LH[0 if mode == "cls" else -1]
            found.append((vector, n))
        return found


_Run = Callable[[TextEngine, Any, list[int], Sequence[Work]], list[Any]]

_RUNS: dict[Head, tuple[_Run, list[str]]] = {
    Head.SEQUENCE: (TextEngine.sequence, ["logits"]),
    Head.TOKEN: (TextEngine.token, ["logits"]),
    Head.SPAN: (TextEngine.span, ["start_logits", "end_logits"]),
    Head.POOL: (TextEngine.pool, ["last_hidden_state"]),
}
"""How each head is read, and the outputs that it needs."""


def open_text(folder: Path, session: Session) -> ItemLoop:
    """Raises ModelRejected, LoadFailed."""
    raw: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    architecture = str((raw.get("architectures") or [""])[0])
    pools = (folder / "modules.json").is_file()
    purpose = find_purpose(architecture, find_labels(raw), pools=pools)
    if purpose is None:
        raise ModelRejected(f"config.json: the onnx driver does not read {architecture}")
    labels = find_labels(raw) or [str(i) for i in range(int(raw.get("num_labels") or 2))]
    model = Model(SimpleNamespace(**raw), labels, read_pooling(folder), purpose, folder)
    engine = TextEngine(session, purpose.head, model)
    return ItemLoop(engine, Finisher(model, Words(folder)).finish, purpose.kinds)
