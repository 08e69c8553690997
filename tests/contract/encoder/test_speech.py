"""Text to speech: sample for sample what the model makes of the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from llmos.drivers.catalog import choose
from llmos.drivers.encoder.finish import to_pcm
from llmos.drivers.encoder.letters import Letters
from llmos.errors import InvalidRequest, ModelRejected
from llmos.weights import inspect
from tests.unit.drivers.encoder.folders import infer, load, outputs, prepared, work_item
from tests.unit.drivers.encoder.media import write_json
from tests.unit.drivers.encoder.voices import make_voice
from tests.unit.drivers.tiny import drive

KIND = "text-to-speech"
TEXT = "The cat sat on a mat, Paris!"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voice(tmp_path_factory.mktemp("voice") / "model")


def _expected(folder: Path, text: str, seed: int, **how: Any) -> bytes:
    model = transformers.VitsModel.from_pretrained(folder).eval()
    tokenizer = transformers.VitsTokenizer.from_pretrained(folder)
    inputs = tokenizer(text, return_tensors="pt")
    torch.manual_seed(seed)
    with torch.inference_mode():
        wave = model(input_ids=inputs["input_ids"], **how).waveform[0]
    return to_pcm(wave.numpy())


@pytest.mark.parametrize("seed", [0, 7])
def test_it_says_what_the_model_says(folder: Path, seed: int) -> None:
    (said,) = infer(folder, KIND, [TEXT], params={"seed": seed})
    assert said.error is None
    assert said.data == _expected(folder, TEXT, seed)
    assert said.value["seed"] == seed
    assert said.value["seconds"] == len(said.data) / 2 / said.value["sampling_rate"] > 0
    assert np.frombuffer(said.data, dtype="<i2").std() > 0


def test_speed_and_voices(tmp_path: Path, folder: Path) -> None:
    fast, slow = (
        infer(folder, KIND, [TEXT], params={"seed": 1, "speed": speed})[0] for speed in (2.0, 0.5)
    )
    assert fast.data == _expected(folder, TEXT, 1, speaking_rate=2.0)
    assert len(slow.data) > len(fast.data)
    several = make_voice(tmp_path / "several", num_speakers=3)
    (third,) = infer(several, KIND, [TEXT], params={"seed": 1, "voice": "2"})
    assert third.data == _expected(several, TEXT, 1, speaker_id=2)
    for wrong in ("3", "alloy", "٢"):
        with pytest.raises(InvalidRequest, match="voices are 0 to 2"):
            prepared(several, KIND, [TEXT], {"voice": wrong})
    (anyone,) = infer(folder, KIND, [TEXT], params={"seed": 1, "voice": "alloy"})
    assert anyone.data == _expected(folder, TEXT, 1)


def test_neighbours_change_nothing_and_a_drawn_seed_is_told(folder: Path) -> None:
    driver = load(folder)
    items = [work_item(f"req_{i}", KIND, prepared(folder, KIND, [TEXT, "a cat"])) for i in range(2)]
    events = drive(driver, items)
    for request_id in ("req_0", "req_1"):
        said, short = outputs(events[request_id])
        assert said.value["seed"] == short.value["seed"]
        assert said.data == _expected(folder, TEXT, said.value["seed"])
        assert short.data == _expected(folder, "a cat", said.value["seed"])
    assert outputs(events["req_0"])[0].value["seed"] != outputs(events["req_1"])[0].value["seed"]


def test_a_long_text_is_said_in_parts(folder: Path) -> None:
    text = "the cat sat on a mat. " * 20
    (whole,) = infer(folder, KIND, [text], params={"seed": 3})
    assert whole.error is None
    part = ("the cat sat on a mat. " * 9).strip()
    rest = ("the cat sat on a mat. " * 2).strip()
    expected = [_expected(folder, one, 3) for one in (part, part, rest)]
    assert whole.data == b"".join(expected)
    (cut,) = infer(folder, KIND, [text], params={"seed": 3, "overflow": "truncate"})
    assert (cut.data, cut.note) == (expected[0], f"cut to {len(part)} characters")
    (refused,) = infer(folder, KIND, [text], params={"overflow": "refuse"})
    (long,) = infer(folder, KIND, ["a" * 5000])
    for one in (refused, long):
        assert one.error is not None
        assert one.error.code == "context_length_exceeded"


def test_what_cannot_be_said_fails_alone(folder: Path) -> None:
    good, marks, other, number = infer(folder, KIND, ["a cat", "!?", "你好", 3])
    assert good.error is None
    for one in (marks, other, number):
        assert one.error is not None
        assert one.error.code == "invalid_request"


@pytest.mark.parametrize(
    "text", ["a cat", " The CAT ", "who? <unk> lives", "naïve 你", "a-b_c", "ţ and ț"]
)
@pytest.mark.parametrize(
    "settings", [{}, {"add_blank": False}, {"language": "ron"}], ids=["plain", "close", "ron"]
)
def test_letters_are_those_of_the_tokenizer(
    tmp_path: Path, text: str, settings: dict[str, Any]
) -> None:
    folder = make_voice(tmp_path / "model", is_saved=False, **settings)
    tokenizer = transformers.VitsTokenizer.from_pretrained(folder)
    if "<unk>" in text:
        text = text.replace("<unk>", "")
    assert Letters(folder).encode(text) == tokenizer(text)["input_ids"]


def test_folders_that_cannot_be_read(tmp_path: Path, folder: Path) -> None:
    facts = inspect(folder)
    choice = choose(facts)
    assert (choice.driver, choice.kinds) == ("encoder", [KIND])
    spoken = make_voice(tmp_path / "phonemes", is_saved=False, phonemize=True)
    with pytest.raises(ModelRejected, match="phonemes"):
        Letters(spoken)
    roman = make_voice(tmp_path / "roman", is_saved=False, is_uroman=True)
    with pytest.raises(InvalidRequest, match="Latin letters"):
        Letters(roman).encode("привет")
    write_json(roman / "vocab.json", {"a": "b"})
    with pytest.raises(ModelRejected, match=r"vocab\.json"):
        Letters(roman)
