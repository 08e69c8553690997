"""Small tables to learn from, and small models to learn with."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

GOOD = ("good", "fine", "lovely", "great")
BAD = ("bad", "dull", "awful", "poor")
OTHER = ("film", "plot", "cast", "music", "story", "scene", "end", "start")

TINY: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "max_length": 16,
}


def sentences(number: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences with one telling word, and which kind it was."""
    rng = random.Random(seed)
    made = []
    for _ in range(number):
        label = rng.choice(("neg", "pos"))
        words = rng.choices(OTHER, k=rng.randint(2, 8))
        words.insert(rng.randrange(len(words)), rng.choice(GOOD if label == "pos" else BAD))
        made.append((" ".join(words), label))
    return made


def write_csv(path: Path, rows: Iterable[Sequence[Any]], names: Sequence[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), "utf-8")
    return path


def sentiment(folder: Path, number: int = 96) -> dict[str, Path]:
    """Three files of sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"train": number, "validation": 16, "test": 16}
    return {
        split: write_csv(folder / f"{split}.csv", sentences(size, seed), ("text", "label"))
        for seed, (split, size) in enumerate(sizes.items())
    }


def recipe(**fields: Any) -> dict[str, Any]:
    """Of a tiny classifier; sections are laid over these."""
    made: dict[str, Any] = {
        "name": "tiny",
        "objective": "classify",
        "data": {name: f"{name}.csv" for name in ("train", "validation", "test")},
        "model": dict(TINY),
        "training": {"epochs": 2, "batch_size": 8},
        "watch": {"log_every": 1},
    }
    for name, value in fields.items():
        whole = isinstance(value, dict) and isinstance(made.get(name), dict)
        made[name] = made[name] | value if whole else value
    return made
