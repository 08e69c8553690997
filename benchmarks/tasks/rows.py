"""Real rows, mixed: all reviews of a Chinese shop, then English sentences on films."""

from __future__ import annotations

import csv
import random
from pathlib import Path

HEADER = ("id", "source", "gold", "text")
SEED = 8401


def write_rows(data: Path, path: Path, num_rows: int) -> None:
    """A CSV of `num_rows` rows in an order that is always the same. Raises ValueError when the data
    hold fewer."""
    shop = data / "classify" / "online_shopping_sample.csv"
    with shop.open(encoding="utf-8", newline="") as file:
        found = [
            ("online_shopping", "positive" if row["label"] == "1" else "negative", row["review"])
            for row in csv.DictReader(file)
            if row["review"].strip()
        ]
    draw = random.Random(SEED)
    english = films(data)
    draw.shuffle(english)
    found += english[: max(0, num_rows - len(found))]
    if len(found) < num_rows:
        raise ValueError(f"there are {len(found)} rows, not {num_rows}")
    draw.shuffle(found)
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(HEADER)
        writer.writerows((number, *row) for number, row in enumerate(found[:num_rows]))


def films(data: Path) -> list[tuple[str, str, str]]:
    """Source, label and text of every English sentence on films."""
    found = []
    for suffix, gold in (("neg", "negative"), ("pos", "positive")):
        raw = (data / "classify" / f"rt-polarity.{suffix}").read_bytes()
        lines = raw.decode("utf-8", "replace").split("\n")
        found += [("rt-polarity", gold, line.strip()) for line in lines if line.strip()]
    return found


def accuracies(path: Path) -> dict[str, float]:
    """Of results with `source`, `gold` and `label`: the share that is right, by source."""
    right: dict[str, list[bool]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            right.setdefault(row["source"], []).append(row["gold"] == row["label"])
    return {source: sum(found) / len(found) for source, found in sorted(right.items())}
