"""Where somebody speaks: a recording's probabilities, and the stretches that they make. Pure.

Source: silero-vad 5 and 6, `get_speech_timestamps` and `OnnxWrapper`. A window is 512 samples at
16 kHz, and the model is given the 64 before it as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec

RATE = 16_000
WINDOW, CONTEXT = 512, 64
STATE_SHAPE = (2, 1, 128)

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Millis = Annotated[float, msgspec.Meta(ge=0, le=60_000)]


class Speech(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Speech begins at `threshold`, and ends where it stays under `threshold` - 0.15 for
    `min_silence_ms`; what is shorter than `min_speech_ms` is none; `pad_ms` are added around."""

    threshold: Probability = 0.5
    min_speech_ms: Millis = 250.0
    min_silence_ms: Millis = 100.0
    pad_ms: Millis = 30.0


def windows(samples: Any) -> Iterator[Any]:
    """Of float32 samples: each window with its context, the last one filled up with silence."""
    import numpy as np

    before = np.zeros(CONTEXT, dtype=np.float32)
    for at in range(0, len(samples), WINDOW):
        window = samples[at : at + WINDOW]
        if len(window) < WINDOW:
            window = np.pad(window, (0, WINDOW - len(window)))
        yield np.concatenate([before, window])
        before = window[-CONTEXT:]


def find_segments(
    probabilities: Sequence[float], num_samples: int, params: Speech
) -> list[dict[str, float]]:
    """`start` and `end` of each stretch in seconds, and its mean `score`."""
    per_ms = RATE / 1000
    least, silence = params.min_speech_ms * per_ms, params.min_silence_ms * per_ms
    found: list[tuple[int, int]] = []
    start: int | None = None
    quiet: int | None = None
    for number, probability in enumerate(probabilities):
        at = number * WINDOW
        if probability >= params.threshold:
            quiet = None
            start = at if start is None else start
        elif start is not None and probability < params.threshold - 0.15:
            quiet = at if quiet is None else quiet
            if at - quiet >= silence:
                if quiet - start > least:
                    found.append((start, quiet))
                start = quiet = None
    if start is not None and num_samples - start > least:
        found.append((start, num_samples))
    return [
        {
            "start": round(begin / RATE, 3),
            "end": round(end / RATE, 3),
            "score": round(_mean(probabilities, *at), 4),
        }
        for (begin, end), at in zip(_padded(found, num_samples, params), found, strict=True)
    ]


def _mean(probabilities: Sequence[float], begin: int, end: int) -> float:
    of_it = probabilities[begin // WINDOW : max(begin // WINDOW + 1, -(-end // WINDOW))]
    return sum(of_it) / len(of_it)


def _padded(
    found: list[tuple[int, int]], num_samples: int, params: Speech
) -> list[tuple[int, int]]:
    """With some sound around each; between two that are near, half of what there is."""
    pad = int(params.pad_ms * RATE / 1000)
    made = []
    for i, (begin, end) in enumerate(found):
        before = begin if not i else (begin - found[i - 1][1]) // 2
        after = (found[i + 1][0] - end) // 2 if i + 1 < len(found) else num_samples - end
        made.append((begin - min(pad, before), end + min(pad, after)))
    return made
