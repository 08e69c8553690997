"""Classifiers and a tagger from scratch beside what scikit-learn makes of the same split."""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.serving import serving
from benchmarks.tasks.rows import films
from benchmarks.train import baselines
from benchmarks.train.jobs import DATA, OPTIONS, Runs
from llmos.programs.task.conll import Sentence, read_conll

SEED = 8
HELD_OUT = 0.1
SETS = ("rt-polarity", "ChnSentiCorp", "banking77", "WNUT17")
TAGGED = "WNUT17"
NUM_COMMON = 4

MODELS: dict[str, dict[str, Any]] = {
    "rt-polarity": {"max_length": 64, "hidden_size": 128, "num_layers": 1, "dropout": 0.3},
    "ChnSentiCorp": {"max_length": 128, "hidden_size": 128, "num_layers": 1},
    "banking77": {"max_length": 48, "hidden_size": 128, "num_layers": 1},
    TAGGED: {"max_length": 96, "hidden_size": 128, "num_layers": 2, "lowercase": False},
}
TRAINING: dict[str, dict[str, Any]] = {
    "rt-polarity": {"epochs": 8, "batch_size": 64, "learning_rate": 5e-4},
    "ChnSentiCorp": {"epochs": 4},
    "banking77": {"epochs": 16},
    TAGGED: {"epochs": 12},
}


def rows_of(name: str) -> list[Any]:
    """Texts with labels, or sentences with tags, mixed."""
    folder = DATA / "classify"
    rows: list[Any]
    if name == "rt-polarity":
        rows = [(text, label) for _, label, text in films(DATA)]
    elif name == "ChnSentiCorp":
        rows = _table(folder / "ChnSentiCorp_htl_all.csv", "review", "label")
    elif name == "banking77":
        rows = _table(folder / "banking77_train.csv", "text", "category")
    else:
        rows = list(read_conll(DATA / "ner" / "ner_wnut17_train.conll"))
    random.Random(SEED).shuffle(rows)
    return rows


def _table(path: Path, text: str, label: str) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [(row[text], row[label]) for row in csv.DictReader(file) if row[text].strip()]


def split(name: str, limit: int | None = None) -> tuple[list[Any], list[Any]]:
    """What is learned from, and the tenth that is held out. With a limit, of labels that are common
    only: of the others there would be too few to be in every part."""
    rows = rows_of(name)
    if limit is not None:
        counts = Counter(label for row in rows for label in _labels(row))
        common = {label for label, _ in counts.most_common(NUM_COMMON)}
        rows = [row for row in rows if common.issuperset(_labels(row))][:limit]
    held = round(HELD_OUT * len(rows))
    return rows[held:], rows[:held]


def _labels(row: Any) -> list[str]:
    return row.tags if isinstance(row, Sentence) else [row[1]]


def write(folder: Path, name: str, learned: Sequence[Any], held: Sequence[Any]) -> dict[str, Path]:
    """As files for a run."""
    form = "conll" if name == TAGGED else "csv"
    files = {part: folder / f"{name}-{part}.{form}" for part in ("train", "test")}
    for path, rows in zip(files.values(), (learned, held), strict=True):
        with path.open("w", encoding="utf-8", newline="") as file:
            if form == "csv":
                csv.writer(file).writerows([("text", "label"), *rows])
            else:
                file.writelines(map(_block, rows))
    return files


def _block(sentence: Sentence) -> str:
    pairs = zip(*sentence, strict=True)
    return "".join(f"{token}\t{tag}\n" for token, tag in pairs) + "\n"


def recipe(name: str) -> dict[str, Any]:
    """A small BERT, with a tokenizer of its own."""
    is_tagged = name == TAGGED
    return {
        "name": name.lower(),
        "objective": "tag" if is_tagged else "classify",
        "data": {"validation": 0.05},
        "model": {"vocab_size": 8000, "dropout": 0.2, **MODELS[name]},
        "training": {"learning_rate": 1e-3, "threads": 1, **TRAINING[name]},
        "watch": {"samples": 0, "metric": "f1" if is_tagged else "accuracy"},
    }


def measure(result: harness.Result, folder: Path, names: list[str], limit: int | None) -> None:
    """Of all rows, or of `limit` for each set."""
    with serving(*OPTIONS) as (server, _):
        runs = Runs(server)
        for name in SETS:
            if name in names:
                _one(result, runs, folder, name, limit)


def _one(result: harness.Result, runs: Runs, folder: Path, name: str, limit: int | None) -> None:
    learned, held = split(name, limit)
    files = write(folder, name, learned, held)
    outputs = runs.end(runs.submit(recipe(name), files)).outputs
    assert outputs is not None
    test = outputs["metrics"]["test"]
    if name == TAGGED:
        peer, said = baselines.tagged(learned, held), baselines.TAGGER
        figure, value = f"{name}: F1 of entities, {len(held)} sentences held out", test["f1"]
    else:
        peer, said = baselines.classified(learned, held), baselines.CLASSIFIER
        figure, value = f"{name}: right of {len(held)} held out", test["accuracy"]
    result.add(beside(figure, value, said, peer))
    result.add(harness.single(f"{name}: to train, one core", "s", [outputs["seconds"]]))


def beside(figure: str, value: float, peer: str, peer_value: float) -> harness.Row:
    """Two shares."""
    ours, theirs = harness.round4(100 * value), harness.round4(100 * peer_value)
    ratio = harness.round4(value / peer_value) if peer_value else None
    return harness.Row(figure, ours, "%", peer, theirs, ratio)
