"""What the small models are worth on real texts, which they were not trained on.

Beside each figure stands what it has to be held against: the larger class, or the same question
answered by counting words (TF-IDF).
"""
# ruff: noqa: N803, N806 - tensor names end in shapes: Number of texts, Vocabulary, Hidden

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from tools.small import lexicon, train

BATCH = 64


def rt_polarity(data: Path) -> list[tuple[str, int]]:
    """Sentences of film reviews (Pang and Lee, 2005): all 10,662."""
    found = []
    for suffix, label in (("neg", 0), ("pos", 1)):
        raw = (data / "classify" / f"rt-polarity.{suffix}").read_bytes()
        found += [
            (line.strip(), label)
            for line in raw.decode("utf-8", "replace").split("\n")
            if line.strip()
        ]
    return found


def chnsenticorp(data: Path) -> list[tuple[str, int]]:
    """Chinese hotel reviews (Tan): all that have a text."""
    with (data / "classify" / "ChnSentiCorp_htl_all.csv").open(
        encoding="utf-8", newline=""
    ) as file:
        return [(row["review"], int(row["label"])) for row in csv.DictReader(file) if row["review"]]


def labelled(data: Path, name: str, text: str, label: str) -> list[tuple[str, str]]:
    """Texts and their class, of a CSV file."""
    path = data / "classify" / name
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        return [(row[text], row[label]) for row in csv.DictReader(file) if row[text]]


def translations(data: Path) -> list[tuple[str, str]]:
    """Questions on Wikipedia in English and in Chinese (XQuAD; Artetxe et al., 2020), each once."""
    path = data / "translate" / "xquad_parallel_en_zh_de.jsonl"
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    found = {row["en"]: row["zh"] for row in rows if row["kind"] == "question"}
    return list(found.items())


@torch.inference_mode()
def sentiment(model: Any, text: Tokenizer, rows: Sequence[tuple[str, int]]) -> dict[str, float]:
    """Accuracy, the mean of both classes' recall, and what a constant answer and the plain sum of
    the lists' weights would have had."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    right: Counter[int] = Counter()
    for start in range(0, len(order), BATCH):
        part = [rows[i] for i in order[start : start + BATCH]]
        logits = model(**train.encode(text, [row[0] for row in part])).logits
        for (_, label), found in zip(part, logits.argmax(-1).tolist(), strict=True):
            right[label] += found == label
    total = Counter(label for _, label in rows)
    summed = sum(_summed(text, row) == label for row, label in rows)
    return {
        "num_texts": len(rows),
        "accuracy": round(sum(right.values()) / len(rows), 4),
        "balanced_accuracy": round(sum(right[n] / total[n] for n in total) / len(total), 4),
        "larger_class": round(max(total.values()) / len(rows), 4),
        "sum_of_words": round(summed / len(rows), 4),
    }


def _summed(text: Tokenizer, row: str) -> int:
    weights = lexicon.weights("en") | lexicon.weights("zh")
    return int(sum(weights.get(t.lstrip("▁"), 0.0) for t in text.encode(row).tokens) > 0)


@torch.inference_mode()
def nearest(model: Any, text: Tokenizer, rows: Sequence[tuple[str, str]]) -> dict[str, float]:
    """How often a text's nearest neighbour is of its class; the same by TF-IDF, and by chance."""
    vectors = _embed(model, text, [row[0] for row in rows])
    labels = [label for _, label in rows]
    counts = Counter(labels)
    chance = sum((n / len(rows)) ** 2 for n in counts.values())
    return {
        "num_texts": len(rows),
        "num_classes": len(counts),
        "nearest_is_same": _same(vectors, labels),
        "tf_idf": _same(_tf_idf(text, [row[0] for row in rows]), labels),
        "chance": round(chance, 4),
    }


@torch.inference_mode()
def across(model: Any, text: Tokenizer, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """How often the nearest of all texts of the other language is the translation; the same by
    TF-IDF (names and numbers are written alike), and by chance."""
    number = len(pairs)
    english, chinese = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    counted_NV = _tf_idf(text, [*english, *chinese])
    return {
        "num_texts": number,
        "num_classes": number,
        "nearest_is_same": _matched(_embed(model, text, english), _embed(model, text, chinese)),
        "tf_idf": _matched(counted_NV[:number], counted_NV[number:]),
        "chance": round(1 / number, 4),
    }


def _matched(from_NH: torch.Tensor, to_NH: torch.Tensor) -> float:
    best = (from_NH @ to_NH.T).argmax(-1)
    return round(float((best == torch.arange(len(best))).float().mean()), 4)


def _embed(model: Any, text: Tokenizer, rows: Sequence[str]) -> torch.Tensor:
    parts = [
        train.embed(model, text, rows[start : start + BATCH])
        for start in range(0, len(rows), BATCH)
    ]
    return torch.cat(parts)


def _same(vectors_NH: torch.Tensor, labels: list[str]) -> float:
    right = 0
    for start in range(0, len(labels), 512):
        scores = vectors_NH[start : start + 512] @ vectors_NH.T
        for i in range(scores.shape[0]):
            scores[i, start + i] = -math.inf
        for i, found in enumerate(scores.argmax(-1).tolist()):
            right += labels[start + i] == labels[found]
    return round(right / len(labels), 4)


def _tf_idf(text: Tokenizer, rows: Sequence[str]) -> torch.Tensor:
    """Of the same tokens as the model reads."""
    ids = [encoding.ids for encoding in text.encode_batch(list(rows))]
    seen = Counter(token for row in ids for token in set(row))
    made_NV = torch.zeros(len(ids), text.get_vocab_size())
    for number, row in enumerate(ids):
        for token, count in Counter(row).items():
            made_NV[number, token] = (1 + math.log(count)) * math.log(len(ids) / seen[token])
    return torch.nn.functional.normalize(made_NV, dim=-1)
