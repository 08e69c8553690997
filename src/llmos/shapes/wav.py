"""RIFF/WAVE around samples of 16 bits, one channel, by the standard library."""

from __future__ import annotations

import io
import wave

SAMPLE_BYTES = 2
_MOST_SAMPLES = (0xFFFFFFFF - 36) // SAMPLE_BYTES
"""What the header says where nobody knows yet: readers then read as far as there is something."""


def wav_header(rate: int, num_bytes: int | None = None) -> bytes:
    """What stands before so many bytes of samples; None: a stream's end is not known."""
    made = io.BytesIO()
    count = _MOST_SAMPLES if num_bytes is None else num_bytes // SAMPLE_BYTES
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(rate)
        file.setnframes(count)
        file.writeframesraw(b"")
        return made.getvalue()  # before closing it sets the count to what was written: nothing


def to_wav(samples: bytes, rate: int) -> bytes:
    """The whole file."""
    return wav_header(rate, len(samples)) + samples
