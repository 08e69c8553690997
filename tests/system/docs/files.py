"""What lies in a reader's folder when the documents speak of it: small tables, texts, a model."""

from __future__ import annotations

import csv
import json
import random
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import llmos

PILOT = Path(llmos.__file__).parent / "pilot"
GOOD = ("good", "fine", "lovely", "great")
BAD = ("bad", "dull", "awful", "poor")
THINGS = ("film", "plot", "cast", "music", "story", "scene")
SAID = (
    "The train to the coast leaves at nine every morning.",
    "Boil the rice for twelve minutes and keep the lid on.",
    "The museum is closed on Mondays and on holidays.",
    "A password has to be changed after ninety days.",
    "The doctor said to rest and to drink a lot of water.",
    "Our shop takes goods back within thirty days.",
)
SOUGHT = ("when does the train leave", "how long does rice boil", "is the museum closed on Mondays")
HELLO = {"model": "pilot", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}


def furnish(folder: Path) -> None:
    """Everything that a page takes as given."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(("train", "val", "test")):
        rows = _rows(320 if name == "train" else 32, number)
        _table(folder / f"{name}.csv", ("text", "label"), rows)
    reviews = [(n, text, label) for n, (text, label) in enumerate(_rows(12, 7))]
    _table(folder / "reviews.csv", ("id", "review", "label"), reviews)
    _lines(folder / "requests.jsonl", (_asked(n) for n in range(3)))
    _lines(folder / "documents.jsonl", ({"id": f"d{n}", "text": t} for n, t in enumerate(SAID)))
    asked = ({"query": query, "relevant": [f"d{n}"]} for n, query in enumerate(SOUGHT))
    _lines(folder / "queries.jsonl", asked)
    (folder / "book.txt").write_text("LLMOS is an operating system for models.\n" * 8, "utf-8")
    (folder / "minutes").mkdir()
    (folder / "minutes" / "monday.txt").write_text("We met and agreed to meet again.", "utf-8")
    (folder / "trace.csv").write_text(_trace(), "utf-8")
    shutil.copytree(PILOT, folder / "folder")
    shutil.copytree(Path(__file__).resolve().parents[3] / "examples", folder / "examples")
    _repository(folder)


def _rows(number: int, seed: int) -> list[tuple[str, str]]:
    """Sentences that tell and their label, both labels alike often."""
    drawn = random.Random(seed)
    rows = []
    for n in range(number):
        label = ("negative", "positive")[n % 2]
        words = drawn.choices(THINGS, k=2)
        words += drawn.choices(GOOD if label == "positive" else BAD, k=3)
        drawn.shuffle(words)
        rows.append((" ".join(words), label))
    return rows


def _table(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def _asked(number: int) -> dict[str, Any]:
    url = "/v1/chat/completions"
    return {"custom_id": f"line-{number}", "method": "POST", "url": url, "body": HELLO}


def _lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _trace() -> str:
    """Of the simulator's columns those that must be there."""
    lines = (f"{n / 4},{20 + n},{10 + n % 7}\n" for n in range(40))
    return "at_s,prompt_tokens,output_tokens\n" + "".join(lines)


def _repository(folder: Path) -> None:
    """`git log` has something to say."""
    author = ("-c", "user.name=Ann", "-c", "user.email=ann@localhost")
    for words in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "Begin")):
        subprocess.run(["git", *author, *words], cwd=folder, check=True, timeout=30)
