"""Speech in a recording: sounds read, stretches found, and the real model on a real voice."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmos.abi.blob import BlobRef
from llmos.abi.events import Outputs
from llmos.abi.inference import ItemsPrompt, PrepareItem, Sampling, TextPrompt, WorkItem
from llmos.drivers.onnx.driver import OnnxDriver
from llmos.drivers.onnx.prepare import SpeechPreparer, make
from llmos.drivers.onnx.sound import read_sound
from llmos.drivers.onnx.speech import CONTEXT, RATE, WINDOW, Speech, find_segments, windows
from llmos.errors import InvalidRequest
from tests.unit.drivers.tiny import make_spec

KIND = "voice-activity-detection"


def wav(samples: Any, rate: int = RATE, width: int = 2, channels: int = 1) -> bytes:
    """Of numbers between -1 and 1."""
    scale = 2.0 ** (8 * width - 1) - 1
    whole = np.round(np.asarray(samples) * scale).astype(np.int64)
    if width == 1:
        raw = (whole + 128).astype(np.uint8).tobytes()
    else:
        raw = b"".join(int(x).to_bytes(width, "little", signed=True) for x in whole)
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return made.getvalue()


TONE = 0.5 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_any_width(width: int) -> None:
    assert read_sound(wav(TONE, width=width)) == pytest.approx(TONE, abs=0.02)


def test_channels_are_mixed() -> None:
    both = np.stack([TONE, np.zeros(RATE)], axis=1).reshape(-1)
    assert read_sound(wav(both, channels=2)) == pytest.approx(TONE / 2, abs=1e-3)


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000])
def test_other_rates(rate: int) -> None:
    there = 0.5 * np.sin(2 * np.pi * 200 * np.arange(rate) / rate)
    found = read_sound(wav(there, rate=rate))
    assert abs(len(found) - RATE) <= 1
    assert found[100:-100] == pytest.approx(TONE[100 : len(found) - 100], abs=0.02)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"<html>",
        wav(TONE)[:40],
        wav([]),
        wav(TONE).replace(b"\x01\x00\x01\x00", b"\x55\x00\x01\x00", 1),  # MP3 inside
        wav(TONE[:100], rate=1000),
    ],
)
def test_files_that_are_none(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_sound(data)


def test_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmos.drivers.onnx.sound.MAX_SECONDS", 0.5)
    with pytest.raises(InvalidRequest, match="in parts"):
        read_sound(wav(TONE))


def test_windows_overlap_and_are_filled_up() -> None:
    samples = np.arange(1, 1101, dtype=np.float32)
    found = list(windows(samples))
    assert [len(one) for one in found] == [CONTEXT + WINDOW] * 3
    assert not found[0][:CONTEXT].any()
    assert found[1][0] == WINDOW - CONTEXT + 1
    joined = np.concatenate([one[CONTEXT:] for one in found])
    assert list(joined[:1100]) == list(samples)
    assert not joined[1100:].any()


def at(*spans: tuple[float, float], seconds: float = 10.0, low: float = 0.1) -> list[float]:
    """Probabilities that are high there."""
    times = np.arange(int(seconds * RATE / WINDOW)) * WINDOW / RATE
    return [0.9 if any(a <= t < b for a, b in spans) else low for t in times]


@pytest.mark.parametrize(
    ("probabilities", "params", "found"),
    [
        (at(), {}, []),
        (at((1, 3)), {"pad_ms": 0}, [(1, 3)]),
        (at((1, 3)), {"pad_ms": 100}, [(0.9, 3.1)]),
        (at((1, 3), (3.05, 5)), {}, [(1, 5)]),  # a breath
        (at((1, 3), (4, 5)), {}, [(1, 3), (4, 5)]),
        (at((1, 3), (4, 5)), {"min_silence_ms": 2000}, [(1, 5)]),
        (at((1, 1.1)), {}, []),  # a click
        (at((1, 1.1)), {"min_speech_ms": 0}, [(1, 1.1)]),
        (at((8, 10)), {}, [(8, 10)]),
        (at((1, 3), low=0.4), {}, [(1, 10)]),  # never quiet enough to end
        (at((1, 3)), {"threshold": 0.95}, []),
    ],
)
def test_segments(
    probabilities: list[float], params: dict[str, float], found: list[tuple[float, float]]
) -> None:
    made = find_segments(probabilities, 10 * RATE, Speech(**params))  # type: ignore[arg-type]
    assert [(one["start"], one["end"]) for one in made] == [
        (pytest.approx(a, abs=0.07), pytest.approx(b, abs=0.07)) for a, b in found
    ]
    assert all(0 < one["score"] <= 1 for one in made)


def ask(preparer: Any, spill: Path, *items: Any, **params: Any) -> WorkItem:
    paths = [one for one in items if isinstance(one, Path)]
    blobs = [BlobRef(path=str(path), size_bytes=0, digest="") for path in paths]
    asked = [{"blob": paths.index(one)} if isinstance(one, Path) else one for one in items]
    prompt = ItemsPrompt(KIND, asked, params, blobs)
    made = preparer.prepare(PrepareItem("r", "", "", prompt, 1, KIND, spill=str(spill)))
    return WorkItem("r", b"", Sampling(), kind=KIND, payload=made.payload, spill=made.spill)


def test_bad_recordings_fail_alone(tmp_path: Path) -> None:
    from llmos.drivers.encoder import payload

    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    good.write_bytes(wav(TONE))
    bad.write_bytes(b"no sound")
    item = ask(SpeechPreparer(), tmp_path / "spill", bad, {"blob": 7}, "text", good)
    items = payload.decode(item.payload).items
    assert [one.error is not None for one in items] == [True, True, True, False]
    assert items[3].rows[0].shape == [RATE]
    assert (tmp_path / "spill").stat().st_size == 4 * RATE


@pytest.mark.parametrize("params", [{"threshold": 2}, {"nonsense": 1}, {"pad_ms": "x"}])
def test_bad_params(tmp_path: Path, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="params"):
        ask(SpeechPreparer(), tmp_path / "spill", {"blob": 0}, **params)
    with pytest.raises(InvalidRequest):
        SpeechPreparer().prepare(PrepareItem("r", "", "", TextPrompt("a"), 1, KIND))


def test_it_finds_the_speech(
    require: Callable[[str], None], test_data: Path, tmp_path: Path
) -> None:
    """Kennedy says one sentence in four breaths, in eleven seconds."""
    require("onnx")
    folder = test_data / "models" / "silero_vad"
    driver = OnnxDriver()
    driver.load(make_spec(folder), lambda fraction, what: None)
    noise, quiet = tmp_path / "noise.wav", tmp_path / "quiet.wav"
    noise.write_bytes(wav(np.random.default_rng(1).uniform(-0.1, 0.1, 3 * RATE)))
    quiet.write_bytes(wav(np.zeros(3 * RATE)))
    voice = test_data / "media" / "jfk.wav"
    driver.submit(ask(make(str(folder)), tmp_path / "spill", quiet, voice, noise))
    found: dict[int, Any] = {}
    while driver.wait_s() is not None:
        for event in driver.step():
            if isinstance(event, Outputs):
                found |= {one.index: one.value for one in event.items}
    assert found[0] == {"segments": [], "seconds": 3.0}
    assert found[2]["segments"] == []
    assert found[1]["seconds"] == 11.0
    spans = [(one["start"], one["end"]) for one in found[1]["segments"]]
    expected = [(0.32, 2.27), (3.27, 4.45), (5.38, 7.68), (8.16, 10.62)]
    assert spans == [pytest.approx(span, abs=0.1) for span in expected]
    driver.unload()
