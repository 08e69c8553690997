"""Classifiers from scratch beside TF-IDF with logistic regression, on one split."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.serving import serving
from benchmarks.tasks.rows import films
from benchmarks.train.jobs import DATA, OPTIONS, Runs

PEER = "scikit-learn, TF-IDF and logistic regression"
SEED = 8
HELD_OUT = 0.1
Labelled = list[tuple[str, str]]

SIZES: dict[str, dict[str, Any]] = {
    "rt-polarity": {"max_length": 64, "hidden_size": 128, "num_layers": 1},
    "ChnSentiCorp": {"max_length": 128, "hidden_size": 128, "num_layers": 1},
    "banking77": {"max_length": 48, "hidden_size": 128, "num_layers": 1},
}
EPOCHS = {"rt-polarity": 4, "ChnSentiCorp": 3, "banking77": 12}


def sets() -> Iterator[tuple[str, Labelled]]:
    """Name and rows."""
    yield "rt-polarity", [(text, label) for _, label, text in films(DATA)]
    folder = DATA / "classify"
    yield "ChnSentiCorp", _table(folder / "ChnSentiCorp_htl_all.csv", "review", "label")
    yield "banking77", _table(folder / "banking77_train.csv", "text", "category")


def _table(path: Path, text: str, label: str) -> Labelled:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [(row[text], row[label]) for row in csv.DictReader(file) if row[text].strip()]


def measure(result: harness.Result, folder: Path, names: list[str]) -> None:
    with serving(*OPTIONS) as (server, _):
        runs = Runs(server)
        for name, rows in sets():
            if name in names:
                _one(result, runs, folder, name, rows)


def _one(result: harness.Result, runs: Runs, folder: Path, name: str, rows: Labelled) -> None:
    random.Random(SEED).shuffle(rows)
    held = round(HELD_OUT * len(rows))
    files = {}
    for split, part in (("test", rows[:held]), ("train", rows[held:])):
        files[split] = folder / f"{name}-{split}.csv"
        with files[split].open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *part])
    recipe = {
        "name": name.lower(),
        "objective": "classify",
        "data": {"validation": 0.05},
        "model": {**SIZES[name], "vocab_size": 8000, "dropout": 0.2},
        "training": {"epochs": EPOCHS[name], "batch_size": 32, "learning_rate": 1e-3, "threads": 1},
        "watch": {"samples": 0, "metric": "accuracy"},
    }
    outputs = runs.end(runs.submit(recipe, files)).outputs
    assert outputs is not None
    ours, peer = outputs["metrics"]["test"]["accuracy"], baseline(rows[held:], rows[:held])
    result.add(
        harness.Row(
            f"{name}: right of {held} held out",
            harness.round4(100 * ours),
            "%",
            PEER,
            harness.round4(100 * peer),
            harness.round4(ours / peer),
        )
    )
    result.add(harness.Row(f"{name}: to train, one core", harness.round4(outputs["seconds"]), "s"))


def baseline(learned: Labelled, held: Labelled) -> float:
    """Its share that is right: words and pairs of them, or of characters where there are no spaces
    between words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    is_spaced = sum(text.count(" ") for text, _ in learned) > 3 * len(learned)
    words = TfidfVectorizer(
        analyzer="word" if is_spaced else "char", ngram_range=(1, 2), sublinear_tf=True
    )
    model = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))
    texts, labels = zip(*learned, strict=True)
    model.fit(texts, labels)
    tested, truth = zip(*held, strict=True)
    return float(model.score(tested, truth))
