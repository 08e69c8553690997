"""Silero's model over recordings: a probability for each window, one after the other."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from llmos.abi.events import ItemOutput
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.loop import ItemLoop
from llmos.drivers.encoder.work import Open, Work
from llmos.drivers.onnx.session import Session
from llmos.drivers.onnx.speech import RATE, STATE_SHAPE, Speech, find_segments, windows
from llmos.errors import EngineFailed

KIND_SPEECH = "voice-activity-detection"


class SpeechEngine:
    """Silero's model. A row is a recording, and its result a probability for each window."""

    limits = msgspec.structs.replace(LIMITS, batch_rows=1)  # each has its own length

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


def open_speech(session: Session) -> ItemLoop:
    """Of Silero's model."""
    return ItemLoop(SpeechEngine(session), _finish, [KIND_SPEECH])


def _finish(_: str, opened: Open, params: dict[str, Any]) -> ItemOutput:
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
