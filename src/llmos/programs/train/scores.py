"""What is measured while a model learns; `llmos eval` measures more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def classification(truth: Sequence[int], guess: Sequence[int], num_labels: int) -> dict[str, float]:
    """Accuracy, and F1 as the mean over labels that occur in either."""
    counts = np.zeros((num_labels, num_labels), dtype=np.int64)
    np.add.at(counts, (np.asarray(truth), np.asarray(guess)), 1)
    right = np.diag(counts)
    both = counts.sum(0) + counts.sum(1)
    occurs = both > 0
    f1 = 2 * right[occurs] / both[occurs]
    return {"accuracy": float(right.sum() / counts.sum()), "f1_macro": float(f1.mean())}


def entities(truth: Sequence[Sequence[str]], guess: Sequence[Sequence[str]]) -> dict[str, float]:
    """Words, and whole entities of BIO labels: found, right, F1 (as seqeval counts by default)."""
    right = found = there = 0
    words = same = 0
    for true, said in zip(truth, guess, strict=True):
        one, other = spans(true), spans(said)
        there += len(one)
        found += len(other)
        right += len(one & other)
        words += len(true)
        same += sum(a == b for a, b in zip(true, said, strict=True))
    precision, recall = right / max(1, found), right / max(1, there)
    f1 = 2 * precision * recall / max(1e-12, precision + recall)
    return {
        "accuracy": same / max(1, words),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Entities as (kind, first, after): `B-` begins one, and so does `I-` of another kind."""
    found, kind, begin = set(), "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, named = tag.partition("-")
        named = named or ("" if tag == "O" else tag)
        goes_on = prefix == "I" and named == kind
        if kind and not goes_on:
            found.add((kind, begin, place))
            kind = ""
        if tag != "O" and not goes_on:
            kind, begin = named, place
    return found
