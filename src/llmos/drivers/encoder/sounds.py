"""Recordings to what a model of speech reads: samples, or a log-mel spectrogram. NumPy, no torch.

RIFF/WAVE is read here (PCM of 8 to 32 bits, floats); channels are averaged, other rates resampled
with a windowed sine (Smith, Digital Audio Resampling). The spectrogram is Whisper's: Hann windows,
the Slaney mel scale, eight decades below the loudest (Radford et al. 2022, and its code).
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from llmos.drivers.encoder.images import blob_of, read_blob
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.params import Transcribe
from llmos.drivers.encoder.payload import Item, Row
from llmos.drivers.encoder.rows import Asked, Result
from llmos.drivers.encoder.spill import Spill
from llmos.drivers.encoder.texts import read_json
from llmos.errors import InvalidRequest, LLMOSError, ModelRejected, PayloadTooLarge

CHUNK_S = 30
"""Whisper reads so much at once; a longer recording is read in parts of this length."""

TOKENS_PER_S = 50
"""What a second costs: as many states as an encoder of speech makes of it."""

_ZEROS = 16
"""Crossings of the resampling sine on either side."""

MAX_PHASES = 1024
"""Places between two samples that the sine is computed for."""


class SampleReader:
    """For models that read samples: one row for a recording."""

    def __init__(self, folder: Path) -> None:
        settings = read_json(folder / "preprocessor_config.json")
        self._rate = int(settings.get("sampling_rate", 16_000))
        self._normalize = bool(settings.get("do_normalize", True))

    def __call__(self, asked: Asked) -> Sequence[Result]:
        params: Transcribe = asked.params
        if params.language is not None or params.translate:
            raise InvalidRequest(
                "this model knows one language, and writes what is said", param="params.language"
            )
        return _each(asked, self._rate, self._rows)

    def _rows(self, samples: Any, spill: Spill) -> list[Row]:
        if self._normalize:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        cost = max(1, len(samples) * TOKENS_PER_S // self._rate)
        return [Row(cost, start=spill.add(samples), shape=[len(samples)])]


class MelReader:
    """For Whisper: a row for each half minute, which the decoder is told how to read."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelRejected."""
        settings = read_json(folder / "preprocessor_config.json")
        self._rate = int(settings.get("sampling_rate", 16_000))
        self._num_mels = int(settings.get("feature_size", 80))
        self._num_fft = int(settings.get("n_fft", 400))
        self._hop = int(settings.get("hop_length", 160))
        self._chunk_s = int(settings.get("chunk_length", CHUNK_S))
        self._speech = read_json(folder / "generation_config.json")
        if not 0 < self._hop <= self._num_fft or self._rate <= 0 or self._num_mels <= 0:
            raise ModelRejected("preprocessor_config.json: sizes that fit no spectrogram")

    def __call__(self, asked: Asked) -> Sequence[Result]:
        forced = self._forced(asked.params)
        return _each(asked, self._rate, self._rows, {"forced": forced})

    def _forced(self, params: Transcribe) -> list[int]:
        """Tokens that an answer begins with: the language, the task, that there are no times."""
        speech = self._speech
        if not speech.get("is_multilingual", False):
            if params.language is not None or params.translate:
                raise InvalidRequest("this model knows one language", param="params.language")
            return _known([speech.get("no_timestamps_token_id")])
        languages = speech.get("lang_to_id") or {}
        name = params.language or "en"
        language = languages.get(name, languages.get(f"<|{name}|>"))
        if not isinstance(language, int):
            raise InvalidRequest(
                f"the model has no language {name[:40]!r}", param="params.language"
            )
        task = "translate" if params.translate else "transcribe"
        tasks = speech.get("task_to_id") or {}
        return _known([language, tasks.get(task), speech.get("no_timestamps_token_id")])

    def _rows(self, samples: Any, spill: Spill) -> list[Row]:
        size = self._rate * self._chunk_s
        found = []
        for begin in range(0, len(samples), size):
            part = np.zeros(size, dtype=np.float32)
            piece = samples[begin : begin + size]
            part[: len(piece)] = piece
            mel_MF = log_mel(
                part, self._rate, self._num_fft, hop=self._hop, num_mels=self._num_mels
            )
            cost = self._chunk_s * TOKENS_PER_S
            found.append(Row(cost, start=spill.add(mel_MF), shape=list(mel_MF.shape)))
        return found


def _known(tokens: list[Any]) -> list[int]:
    return [token for token in tokens if isinstance(token, int)]


def _each(asked: Asked, rate: int, rows: Any, about: Any = None) -> Sequence[Result]:
    with Spill(asked.spill) as spill:
        found: list[Result] = []
        for item in asked.items:
            try:
                spill.check()
                data = read_blob(blob_of(item, asked.blobs), LIMITS.sound_bytes)
                samples = read_wav(data, rate)
                found.append(Item(0, rows(samples, spill), about))
            except LLMOSError as error:
                found.append(error)
        asked.spilled = spill.path
        return found


def read_wav(data: bytes, rate: int) -> Any:
    """Samples from -1 to 1 at `rate`. Raises InvalidRequest, PayloadTooLarge."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise InvalidRequest("it is no WAV file: other recordings are not read")
    layout, body = _chunks(data)
    tag, num_channels, own_rate, width = layout
    if not num_channels or not 1000 <= own_rate <= 384_000:
        raise InvalidRequest(f"a WAV file of {num_channels} channels at {own_rate} Hz")
    samples = _numbers(body, tag, width)
    samples = samples[: len(samples) // num_channels * num_channels]
    if not len(samples):
        raise InvalidRequest("the recording is empty")
    if len(samples) / num_channels / own_rate > LIMITS.sound_s:
        raise PayloadTooLarge(f"the recording is longer than {LIMITS.sound_s:g} s")
    mono = samples.reshape(-1, num_channels).mean(axis=1, dtype=np.float64)
    if not np.isfinite(mono).all():
        raise InvalidRequest("the recording holds numbers that are none")
    return resample(mono, own_rate, rate).astype(np.float32)


def _chunks(data: bytes) -> tuple[tuple[int, int, int, int], bytes]:
    """Format tag, channels, rate and bits; and the samples, as far as they are there."""
    at, layout = 12, None
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        body = data[at + 8 : at + 8 + size]
        if name == b"fmt " and len(body) >= 16:
            tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
            if tag == 0xFFFE and len(body) >= 26:  # extensible: the tag begins a GUID
                tag = struct.unpack_from("<H", body, 24)[0]
            layout = (tag, channels, rate, bits)
        elif name == b"data":
            if layout is None:
                break
            return layout, body
        at += 8 + size + size % 2
    raise InvalidRequest("the WAV file is not whole: it has no format or no samples")


def _numbers(body: bytes, tag: int, bits: int) -> Any:
    kinds = {(1, 16): "<i2", (1, 32): "<i4", (3, 32): "<f4", (3, 64): "<f8"}
    if (tag, bits) == (1, 8):
        return (np.frombuffer(body, dtype=np.uint8).astype(np.float64) - 128) / 128
    if (tag, bits) == (1, 24):
        raw = np.frombuffer(body[: len(body) // 3 * 3], dtype=np.uint8).reshape(-1, 3)
        wide = np.zeros((len(raw), 4), dtype=np.uint8)
        wide[:, 1:] = raw
        return wide.view("<i4").ravel() / float(1 << 31)
    if (tag, bits) not in kinds:
        raise InvalidRequest(f"a WAV file of format {tag} with {bits} bits is not read")
    width = bits // 8
    found = np.frombuffer(body[: len(body) // width * width], dtype=kinds[tag, bits])
    return found.astype(np.float64) / (1 if tag == 3 else float(1 << (bits - 1)))


def resample(samples: Any, old: int, new: int) -> Any:
    """As long in time; what the new rate cannot carry is filtered out.

    Odd rates are taken as the nearest with `MAX_PHASES`, less than a millionth away.
    """
    if old == new:
        return samples
    ratio = Fraction(old, new).limit_denominator(MAX_PHASES)
    down, up = ratio.numerator, ratio.denominator
    count = -(-len(samples) * up // down)
    cut = min(1.0, up / down)
    reach = math.ceil(_ZEROS / cut)
    padded = np.concatenate([np.zeros(reach), samples, np.zeros(reach + 1)])
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    found = np.zeros(count)
    taps = np.arange(-reach, reach + 1)
    for phase in range(min(up, count)):
        # outputs phase, phase + up, ... lie at the same fraction between two samples
        first, rest = divmod(phase * down, up)
        distance = taps - rest / up
        window = np.where(
            np.abs(distance) <= reach, 0.5 + 0.5 * np.cos(np.pi * distance / reach), 0
        )
        places = found[phase::up]
        places[:] = around[first::down][: len(places)] @ (cut * np.sinc(cut * distance) * window)
    return found


@cache
def _mel_bank(num_bins: int, num_mels: int, rate: int) -> Any:
    """Triangles on Slaney's scale (linear to 1 kHz, then logarithmic), of equal area."""

    def to_hertz(mels: Any) -> Any:
        step = math.log(6.4) / 27.0
        return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))

    top = rate / 2
    top_mel = 15 + math.log(top / 1000) * 27.0 / math.log(6.4) if top >= 1000 else top * 3 / 200
    edges = to_hertz(np.linspace(0.0, top_mel, num_mels + 2))
    bins = np.linspace(0, rate // 2, num_bins)
    slopes = edges[None, :] - bins[:, None]
    widths = np.diff(edges)
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    bank = np.maximum(0, np.minimum(rising, falling))
    return bank * (2.0 / (edges[2:] - edges[:-2]))[None, :]


def log_mel(samples: Any, rate: int, num_fft: int, *, hop: int, num_mels: int) -> Any:
    """(mels, frames), about -1 to 1."""
    window = np.hanning(num_fft + 1)[:-1]
    padded = np.pad(samples.astype(np.float64), num_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, num_fft)[::hop]
    power = np.abs(np.fft.rfft(frames * window, axis=-1)) ** 2
    bank = _mel_bank(num_fft // 2 + 1, num_mels, rate)
    mels = np.log10(np.maximum(1e-10, power @ bank)).T[:, :-1]  # the last frame is half padding
    mels = np.maximum(mels, mels.max() - 8.0)
    return ((mels + 4.0) / 4.0).astype(np.float32)
