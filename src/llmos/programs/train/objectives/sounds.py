"""One label for every sound of a folder of folders: WAV files, heard as one channel of 16 kHz."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmos.errors import InvalidRequest
from llmos.programs.train.examples import Batch, Examples
from llmos.programs.train.models import load_or_make
from llmos.programs.train.objectives.labelled import Labelled
from llmos.programs.train.work import Setting, Work

RATE_HZ = 16_000
FILE = "preprocessor_config.json"
SETTINGS = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "sampling_rate": RATE_HZ,
    "padding_value": 0.0,
    "do_normalize": True,
    "return_attention_mask": False,
}
SAMPLES_PER_TOKEN = 320
WIDTHS = {1: np.uint8, 2: np.int16, 4: np.int32}


def prepare(setting: Setting) -> Work:
    """Raises InvalidRequest for what is no sound, for a base that does not hear waves."""
    recipe = setting.recipe
    labelled = Labelled(setting)
    model = load_or_make(setting, "AutoModelForAudioClassification", None, **labelled.fields())
    if model.main_input_name != "input_values" or model.config.model_type not in HEARS_WAVES:
        raise InvalidRequest(
            f"{model.config.model_type} does not hear waves: {', '.join(HEARS_WAVES)} do",
            param="recipe.base",
        )
    examples = {}
    for split, rows in setting.rows.items():
        sounds = [_samples(row, number, split) for number, row in enumerate(rows)]
        numbers = labelled.numbers[split]
        made = [{"samples": s, "label": y} for s, y in zip(sounds, numbers, strict=True)]
        lengths = [max(1, len(s) // SAMPLES_PER_TOKEN) for s in sounds]
        examples[split] = Examples(made, lengths, _collate, recipe.training.seed)

    def finish(folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(SETTINGS, indent=2), "utf-8")

    facts = {"labels": labelled.labels}
    return Work(
        model,
        None,
        examples,
        labelled.score,
        metric="accuracy",
        finish=finish,
        facts=facts,
    )


HEARS_WAVES = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "sew")


def _samples(row: Mapping[str, Any], number: int, split: str) -> np.ndarray:
    """Mono, 16 kHz, mean 0 and deviation 1."""
    try:
        with wave.open(io.BytesIO(row.get("data", b""))) as file:
            kind = WIDTHS[file.getsampwidth()]
            raw = np.frombuffer(file.readframes(file.getnframes()), kind)
            channels, rate = file.getnchannels(), file.getframerate()
    except (wave.Error, EOFError, KeyError, ValueError) as error:
        named = row.get("file", number + 1)
        raise InvalidRequest(
            f"{split}: {named} is no WAV file: {error}", param=f"files.{split}"
        ) from None
    heard = raw.reshape(-1, channels).astype(np.float32).mean(1)
    if rate != RATE_HZ:
        places = np.arange(0, len(heard), rate / RATE_HZ)
        heard = np.interp(places, np.arange(len(heard)), heard).astype(np.float32)
    if not len(heard):
        raise InvalidRequest(f"{split}: row {number + 1} is silent", param=f"files.{split}")
    centred: np.ndarray = (heard - heard.mean()) / np.sqrt(heard.var() + 1e-7)
    return centred


def _collate(rows: list[Mapping[str, Any]], rng: np.random.Generator) -> Batch:
    longest = max(len(row["samples"]) for row in rows)
    made = np.zeros((len(rows), longest), np.float32)
    for number, row in enumerate(rows):
        made[number, : len(row["samples"])] = row["samples"]
    return {
        "input_values": torch.from_numpy(made),
        "labels": torch.tensor([row["label"] for row in rows]),
    }
