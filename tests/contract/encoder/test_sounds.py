"""Speech: what is read of a recording, and the texts that models make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from llmos.abi.events import ItemOutput
from llmos.drivers.encoder.sounds import MAX_PHASES, log_mel, read_wav, resample
from llmos.errors import InvalidRequest
from tests.unit.drivers.encoder.folders import (
    PIECES,
    bert_tokenizer,
    load,
    outputs,
    prepared,
    work_item,
)
from tests.unit.drivers.encoder.media import blob, save_random, tone, wav, write_json
from tests.unit.drivers.tiny import drive

KIND = "automatic-speech-recognition"
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghij"]


@pytest.mark.parametrize(
    ("bits", "tag", "close"),
    [(8, 1, 1e-2), (16, 1, 1e-4), (24, 1, 1e-6), (32, 1, 1e-7), (32, 3, 1e-7), (64, 3, 1e-7)],
)
def test_every_format_of_samples(bits: int, tag: int, close: float) -> None:
    samples = tone(0.1)
    found = read_wav(wav(samples, bits=bits, tag=tag), 16_000)
    assert found.dtype == np.float32
    assert found == pytest.approx(samples, abs=close)


def test_channels_are_averaged() -> None:
    left, right = tone(0.1), tone(0.1, 300)
    both = np.stack([left, right], axis=1).ravel()
    assert read_wav(wav(both, channels=2), 16_000) == pytest.approx((left + right) / 2, abs=1e-4)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 44_101, 48_000, 383_999])
def test_other_rates_are_resampled(rate: int) -> None:
    """A tone stays itself, but for the ends; what is too high is gone."""
    ours = resample(tone(0.5, 440, rate), rate, 16_000)
    expected = tone(0.5, 440, 16_000)
    assert abs(len(ours) - len(expected)) <= 1
    inside = slice(200, 7800)
    assert ours[inside] == pytest.approx(expected[inside], abs=5e-3)
    if rate > 20_000:
        t = np.arange(rate // 2) / rate
        high = resample(np.sin(2 * np.pi * 9_500 * t), rate, 16_000)
        assert np.abs(high[inside]).max() < 0.1


def test_an_odd_rate_costs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that shares no divisor with ours has 16,000 places between samples, each with a sine."""
    sines = []
    sinc = np.sinc
    monkeypatch.setattr(np, "sinc", lambda x: sines.append(len(x)) or sinc(x))
    resample(np.zeros(2 * 44_101), 44_101, 16_000)
    assert 0 < len(sines) <= MAX_PHASES


def test_the_spectrogram_is_whispers() -> None:
    theirs = transformers.WhisperFeatureExtractor(feature_size=80)
    samples = tone(30.0).astype(np.float32)
    expected = theirs(samples, sampling_rate=16_000, return_tensors="np")["input_features"][0]
    assert log_mel(samples, 16_000, 400, hop=160, num_mels=80) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"ID3 mp3",
        wav(tone(0.1))[:30],
        wav(np.zeros(0)),
        wav(tone(0.1), rate=10),
        wav(tone(0.1), tag=7),
        wav(np.array([np.nan, 0.0]), bits=32, tag=3),
    ],
)
def test_what_is_no_recording(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_wav(data, 16_000)


def test_a_recording_that_was_cut_is_read_as_far_as_it_goes() -> None:
    whole = wav(tone(0.1))
    assert len(read_wav(whole[:-101], 16_000)) == 1600 - 51


def _ask(folder: Path, tmp_path: Path, sounds: list[bytes], **params: Any) -> list[ItemOutput]:
    blobs = [blob(tmp_path, f"sound{i}", data) for i, data in enumerate(sounds)]
    spill = tmp_path / "spill"
    items = [{"blob": i} for i in range(len(sounds))]
    made = prepared(folder, KIND, items, params, blobs=blobs, spill=str(spill))
    found = outputs(drive(load(folder), [work_item("req_1", KIND, made)])["req_1"])
    spill.unlink(missing_ok=True)
    return found


@pytest.mark.parametrize("family", ["Wav2Vec2", "Hubert"])
def test_letters_by_frames(family: str, tmp_path: Path) -> None:
    cls = getattr(transformers, f"{family}ForCTC")
    config = cls.config_class(
        vocab_size=len(LETTERS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16, 16, 16),
        conv_stride=(5, 4, 4),
        conv_kernel=(10, 8, 4),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        pad_token_id=0,
    )
    folder = tmp_path / "m"
    save_random(folder, cls(config), 0.3)
    write_json(folder / "preprocessor_config.json", {"do_normalize": True, "sampling_rate": 16_000})
    write_json(folder / "vocab.json", {u: i for i, u in enumerate(LETTERS)})
    write_json(folder / "tokenizer_config.json", {"word_delimiter_token": "|"})
    sounds = [tone(0.8), tone(0.5, 800), tone(0.8, 200)]
    ours = _ask(folder, tmp_path, [wav(s, bits=32, tag=3) for s in sounds])
    model = cls.from_pretrained(folder).eval()
    read = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    for mine, samples in zip(ours, sounds, strict=True):
        assert mine.error is None, mine.error
        values = read(samples.astype(np.float32), sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            ids = model(values.input_values).logits.argmax(-1)[0]
        assert mine.value["text"] == tokenizer.decode(ids, skip_special_tokens=True)
    assert any(mine.value["text"] for mine in ours)
    with pytest.raises(InvalidRequest, match="one language"):
        _ask(folder, tmp_path, [wav(tone(0.1))], language="fr")


@pytest.fixture
def whisper(tmp_path: Path) -> Path:
    config = transformers.WhisperConfig(
        vocab_size=len(PIECES),
        num_mel_bins=80,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_target_positions=64,
        decoder_start_token_id=5,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        suppress_tokens=[],
        begin_suppress_tokens=[7],
    )
    folder = tmp_path / "m"
    save_random(folder, transformers.WhisperForConditionalGeneration(config), 0.3)
    bert_tokenizer(folder)
    write_json(folder / "preprocessor_config.json", {"feature_size": 80, "chunk_length": 30})
    path = folder / "generation_config.json"
    speech = {
        "is_multilingual": True,
        "lang_to_id": {"<|en|>": 8, "<|fr|>": 9},
        "task_to_id": {"transcribe": 10, "translate": 11},
        "no_timestamps_token_id": 12,
        "begin_suppress_tokens": [7],
        "suppress_tokens": [20],
    }
    write_json(path, json.loads(path.read_text()) | speech)
    return folder


def test_texts_of_speech(whisper: Path, tmp_path: Path) -> None:
    """Token for token what the decoder makes of the same states, under the same rules."""
    sounds = [tone(2.0), tone(1.0, 800)]
    model = transformers.WhisperForConditionalGeneration.from_pretrained(whisper).eval()
    read = transformers.WhisperFeatureExtractor(feature_size=80)
    tokenizer = transformers.AutoTokenizer.from_pretrained(whisper)
    for language, token, translate, task in (("fr", 9, False, 10), ("en", 8, True, 11)):
        ours = _ask(
            whisper,
            tmp_path,
            [wav(s, bits=32, tag=3) for s in sounds],
            language=language,
            translate=translate,
            max_new_tokens=12,
        )
        for mine, samples in zip(ours, sounds, strict=True):
            assert mine.error is None, mine.error
            features = read(samples, sampling_rate=16_000, return_tensors="pt").input_features
            ids = [5, token, task, 12]
            with torch.inference_mode():
                while len(ids) < 13 and ids[-1] != 3:
                    logits = model(
                        input_features=features, decoder_input_ids=torch.tensor([ids])
                    ).logits[0, -1]
                    logits[20] = -torch.inf
                    if len(ids) == 4:
                        logits[7] = -torch.inf
                    ids.append(int(logits.argmax()))
            assert mine.value["text"] == tokenizer.decode(ids[1:], skip_special_tokens=True)


def test_a_long_recording_is_read_in_parts(whisper: Path, tmp_path: Path) -> None:
    long = np.concatenate([tone(30.0), tone(2.0, 800)])
    parts = [long[: 30 * 16_000], long[30 * 16_000 :]]
    whole, first, second = _ask(
        whisper, tmp_path, [wav(s, bits=32, tag=3) for s in (long, *parts)], max_new_tokens=8
    )
    assert whole.value["text"] == f"{first.value['text']} {second.value['text']}".strip()


def test_what_is_wrong_with_one_recording_is_its_own(whisper: Path, tmp_path: Path) -> None:
    found = _ask(whisper, tmp_path, [b"junk", wav(tone(0.5))], max_new_tokens=4)
    assert [one.error is None for one in found] == [False, True]
    with pytest.raises(InvalidRequest, match="no language 'xx'"):
        _ask(whisper, tmp_path, [wav(tone(0.5))], language="xx")
