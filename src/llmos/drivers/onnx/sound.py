"""A recording's file to samples: WAV with plain numbers in it. Blocking, torch-free."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np

from llmos.drivers.onnx.speech import RATE
from llmos.errors import InvalidRequest

MAX_SECONDS = 600.0
MAX_BYTES = 256 << 20
_RATES = range(4000, 384_001)
_MOST_CHANNELS = 16


def read_sound(data: bytes) -> Any:
    """Float32 at 16 kHz, one channel, between -1 and 1. Raises InvalidRequest."""
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"the recording is over {MAX_BYTES} bytes", param="inputs")
    try:
        with wave.open(io.BytesIO(data)) as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            num_frames = file.getnframes()
            known = rate in _RATES and 1 <= channels <= _MOST_CHANNELS and width in (1, 2, 3, 4)
            if not known:
                what = f"{channels} channels of {8 * width} bits at {rate} Hz"
                raise InvalidRequest(f"a WAV of {what} is not supported", param="inputs")
            if num_frames / rate > MAX_SECONDS:
                raise InvalidRequest(
                    f"the recording is over {MAX_SECONDS:.0f} s: send it in parts", param="inputs"
                )
            raw = file.readframes(num_frames)
    except (wave.Error, EOFError, ValueError, OverflowError) as error:
        what = str(error) or "it is cut short"
        raise InvalidRequest(f"this is no WAV file: {what[:100]}", param="inputs") from None
    samples = _numbers(raw, width)
    frames = samples[: len(samples) // channels * channels].reshape(-1, channels).mean(axis=1)
    if not len(frames):
        raise InvalidRequest("there is no sound in the file", param="inputs")
    return _resampled(frames, rate).astype(np.float32)


def _numbers(raw: bytes, width: int) -> Any:
    raw = raw[: len(raw) // width * width]
    if width == 1:  # the only one without a sign
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - 128.0) / 128.0
    if width == 3:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        return wide.reshape(-1).view("<i4").astype(np.float32) / 2.0**31
    return np.frombuffer(raw, f"<i{width}").astype(np.float32) / 2.0 ** (8 * width - 1)


def _resampled(samples: Any, rate: int) -> Any:
    """By straight lines, after a running mean where the rate goes down: enough to find speech."""
    if rate == RATE:
        return samples
    if rate > RATE:
        size = round(rate / RATE)
        if size > 1:
            samples = np.convolve(samples, np.full(size, 1.0 / size), mode="same")
    num = max(1, int(len(samples) * RATE / rate))
    return np.interp(np.arange(num) * (rate / RATE), np.arange(len(samples)), samples)
