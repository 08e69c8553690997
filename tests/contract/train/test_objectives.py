"""Every objective learns something from scratch, and what it makes can be loaded again."""

from __future__ import annotations

import io
import json
import math
import random
import tarfile
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from tests.contract.train.context import run
from tests.contract.train.data import OTHER, TINY, sentences, write_csv, write_jsonl

Made = tuple[dict[str, Any], dict[str, Path]]


def text_file(folder: Path) -> Path:
    path = folder / "train.txt"
    path.write_text("\n".join(text for text, _ in sentences(400)), "utf-8")
    return path


def language(objective: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        wanted = {"objective": objective, "data": {"train": "train.txt", "format": "lines"}}
        wanted["model"] = TINY | {"vocab_size": 400, "max_length": 32}
        return wanted, {"train": text_file(folder)}

    return make


def regress(folder: Path) -> Made:
    rows = [(text, 1.0 if label == "pos" else -1.0) for text, label in sentences(200)]
    path = write_csv(folder / "train.csv", rows, ("text", "label"))
    return {"objective": "regress", "data": {"train": "train.csv"}}, {"train": path}


def tag(folder: Path) -> Made:
    rows = []
    for text, label in sentences(200):
        words = text.split()
        tags = ["O" if word in OTHER else f"B-{label}" for word in words]
        rows.append({"text": words, "label": tags})
    path = write_jsonl(folder / "train.jsonl", rows)
    return {"objective": "tag", "data": {"train": "train.jsonl"}}, {"train": path}


def qa(folder: Path) -> Made:
    rows = [
        {
            "text": text,
            "pair": "which word tells?",
            "label": next(w for w in text.split() if w not in OTHER),
        }
        for text, _ in sentences(200)
    ]
    path = write_jsonl(folder / "train.jsonl", rows)
    return {
        "objective": "qa",
        "data": {"train": "train.jsonl", "pair": "pair"},
        "model": TINY | {"max_length": 24},
    }, {"train": path}


def seq2seq(folder: Path) -> Made:
    rows = [(word, word.upper()) for word in random.Random(0).choices(OTHER, k=200)]
    path = write_csv(folder / "train.csv", rows, ("text", "target"))
    wanted = {"objective": "seq2seq", "data": {"train": "train.csv"}}
    return wanted | {"model": TINY | {"vocab_size": 400}}, {"train": path}


def embed(folder: Path) -> Made:
    rows = [(text, " ".join(reversed(text.split()))) for text, _ in sentences(200)]
    path = write_csv(folder / "train.csv", rows, ("text", "other"))
    return {
        "objective": "embed",
        "data": {"train": "train.csv", "pair": "other"},
    }, {"train": path}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def images(folder: Path) -> Made:
    files = {}
    for number in range(80):
        colour = ("dark", "light")[number % 2]
        rng = np.random.default_rng(number)
        low = 0 if colour == "dark" else 150
        out = io.BytesIO()
        Image.fromarray(rng.integers(low, low + 100, (8, 8, 3), np.uint8)).save(out, "PNG")
        files[f"{colour}/{number}.png"] = out.getvalue()
    wanted = {"objective": "images", "data": {"train": "pictures.tar"}}
    model = TINY | {"image_size": 8, "patch_size": 4}
    return wanted | {"model": model}, {"train": pack(folder / "pictures.tar", files)}


def sounds(folder: Path) -> Made:
    files = {}
    for number in range(60):
        kind = ("high", "low")[number % 2]
        places = np.arange(1600) * (0.6 if kind == "high" else 0.05)
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes((8000 * np.sin(places + number)).astype(np.int16).tobytes())
        files[f"{kind}/{number}.wav"] = out.getvalue()
    wanted = {"objective": "sounds", "data": {"train": "sounds.tar"}, "model": dict(TINY)}
    return wanted, {"train": pack(folder / "sounds.tar", files)}


CASES: dict[str, tuple[Callable[[Path], Made], str]] = {
    "masked": (language("masked"), "BertForMaskedLM"),
    "causal": (language("causal"), "LlamaForCausalLM"),
    "denoise": (language("denoise"), "T5ForConditionalGeneration"),
    "regress": (regress, "BertForSequenceClassification"),
    "tag": (tag, "BertForTokenClassification"),
    "qa": (qa, "BertForQuestionAnswering"),
    "seq2seq": (seq2seq, "T5ForConditionalGeneration"),
    "embed": (embed, "BertModel"),
    "images": (images, "ViTForImageClassification"),
    "sounds": (sounds, "Wav2Vec2ForSequenceClassification"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_learns_and_is_whole(tmp_path: Path, name: str) -> None:
    make, architecture = CASES[name]
    given, files = make(tmp_path)
    wanted = {
        "name": name,
        "model": dict(TINY),
        "training": {"steps": 60, "batch_size": 16, "learning_rate": 1e-2, "threads": 1},
        "watch": {"log_every": 5, "evaluate_every": 30},
    } | given
    if name == "sounds":
        wanted["training"] |= {"steps": 24}
        wanted["watch"] |= {"log_every": 3}
    outputs, context = run(tmp_path / "run", wanted, files, yields=[6])
    losses = [m["loss"] for m in context.metrics() if "split" not in m]
    assert losses[-1] < losses[0]
    assert all(math.isfinite(v) for s in outputs["metrics"].values() for v in s.values())
    assert context.registered is not None
    config = json.loads((context.registered / "config.json").read_text())
    assert config["architectures"] == [architecture]
    with safe_open(context.registered / "model.safetensors", "pt") as weights:
        assert len(list(weights.keys())) > 5
    from llmos.weights import inspect

    facts = inspect(context.registered)
    assert facts.architecture == architecture


@pytest.mark.parametrize(
    "name", ["masked", *(pytest.param(n, marks=pytest.mark.deep) for n in ("denoise", "causal"))]
)
def test_what_is_drawn_for_a_batch_is_drawn_again(tmp_path: Path, name: str) -> None:
    given, files = CASES[name][0](tmp_path)
    wanted = {"name": name, "training": {"steps": 20, "batch_size": 8, "threads": 1}} | given
    whole, _ = run(tmp_path / "whole", wanted, files)
    parts, _ = run(tmp_path / "parts", wanted | {"watch": {"log_every": 1}}, files, yields=[3, 11])
    assert parts["weights"] == whole["weights"]
