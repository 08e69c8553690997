"""What an ONNX model computes of a batch of rows: one engine for texts, one for sound.

Shapes: B rows, L tokens, H hidden units.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmos.abi.events import ItemOutput
from llmos.drivers.encoder.kinds import Head
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.pooling import Pooling
from llmos.drivers.encoder.work import Open, Work
from llmos.drivers.onnx.session import Session
from llmos.drivers.onnx.speech import RATE, STATE_SHAPE, Speech, find_segments, windows
from llmos.errors import EngineFailed, LoadFailed

KIND_SPEECH = "voice-activity-detection"


class SpeechEngine:
    """Silero's model. A row is a recording, and its result a probability for each window."""

    most_tokens = 1  # recordings run one by one: each has its own length

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, batch: Sequence[Work]) -> list[Any]:
        """Raises EngineFailed."""
        return [self._probabilities(_samples(work)) for work in batch]

    def _probabilities(self, samples: Any) -> list[float]:
        state, found = np.zeros(STATE_SHAPE, dtype=np.float32), []
        rate = np.array(RATE, dtype=np.int64)
        for window in windows(samples):
            made = self._session.run({"input": window[None], "state": state, "sr": rate})
            state = made["stateN"]
            found.append(float(made["output"].reshape(-1)[0]))
        return found

    def finish(self, kind: str, opened: Open, params: dict[str, Any]) -> ItemOutput:
        """The stretches of speech in a recording."""
        num_samples = opened.item.rows[0].shape[0]
        segments = find_segments(opened.results[0], num_samples, Speech(**params))
        seconds = round(num_samples / RATE, 3)
        return ItemOutput(opened.item.index, {"segments": segments, "seconds": seconds})


def _samples(work: Work) -> Any:
    row, path = work.row, Path(work.request.item.spill)
    num_samples = row.shape[0]
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return np.frombuffer(data[4 * row.start : 4 * (row.start + num_samples)], "<f4").copy()
    except (OSError, ValueError) as error:
        raise EngineFailed(f"the samples are gone: {error}") from None


class TextEngine:
    """An export of a text encoder: what comes of its rows is what `Finisher` reads."""

    def __init__(
        self, session: Session, head: Head, pooling: Pooling, *, pad: int, num_types: int
    ) -> None:
        """Raises LoadFailed where the graph does not have what its head needs."""
        self._session = session
        self._pooling = pooling
        self._pad = pad
        self._has_types = "token_type_ids" in session.inputs
        self._types_count = num_types
        if head not in _RUNS:
            raise LoadFailed(f"an export for {head} is not supported")
        self._run, wanted = _RUNS[head]
        missing = [name for name in wanted if name not in session.outputs]
        if missing:
            has = ", ".join(session.outputs)
            raise LoadFailed(f"the export has no output {missing[0]} (it has {has})")

    @property
    def most_tokens(self) -> int:
        """Of a batch with padding."""
        return LIMITS.batch_tokens

    def run(self, batch: Sequence[Work]) -> list[Any]:
        """The result of every row. Raises EngineFailed."""
        rows = [np.frombuffer(work.row.tokens, dtype=np.int32) for work in batch]
        lengths = [len(row) for row in rows]
        ids_BL = np.full((len(rows), max(lengths)), self._pad, dtype=np.int64)
        types_BL = np.zeros_like(ids_BL)
        for i, row in enumerate(rows):
            ids_BL[i, : len(row)] = row
            if self._types_count > 1 and batch[i].row.types:
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
