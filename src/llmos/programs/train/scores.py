"""What is measured while a model learns, by `programs.metrics`; `llmos eval` measures more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmos.errors import InvalidRequest
from llmos.programs.metrics.classification import Classified, figure_of, label_scores
from llmos.programs.metrics.entities import OUTSIDE, entities_of, split_tag, tag_accuracy
from llmos.programs.metrics.score import value_of

TOLD = ("accuracy", "f1_macro")
FIGURES = ("precision", "recall", "f1")


def classification(truth: Sequence[int], guess: Sequence[int], num_labels: int) -> dict[str, float]:
    """Accuracy, and F1 as the mean over labels that occur in either."""
    names = [str(number) for number in range(num_labels)]
    found = Classified(names, np.asarray(truth, np.int64), np.asarray(guess, np.int64))
    return {score.name: value_of(score) for score in label_scores(found) if score.name in TOLD}


def are_entities(labels: Sequence[str]) -> bool:
    """Whether they are tags of BIO or its kin, not one label for each word."""
    try:
        return {split_tag(label)[0] for label in labels} != {OUTSIDE}
    except InvalidRequest:
        return False


def entities(truth: Sequence[Sequence[str]], guess: Sequence[Sequence[str]]) -> dict[str, float]:
    """Words that are right, and whole entities over all types, as seqeval counts by default."""
    pairs = [(entities_of(a), entities_of(b)) for a, b in zip(truth, guess, strict=True)]
    right, there, said = (
        np.asarray(sum(map(len, found)), np.float64)
        for found in ((a & b for a, b in pairs), (a for a, _ in pairs), (b for _, b in pairs))
    )
    figures = {name: float(figure_of(name, right, there, said)) for name in FIGURES}
    return {"accuracy": value_of(tag_accuracy(truth, guess)), **figures}


def words(truth: Sequence[Sequence[str]], guess: Sequence[Sequence[str]]) -> dict[str, float]:
    """As `classification`, of words with a label each."""
    gold, said = ([tag for row in rows for tag in row] for rows in (truth, guess))
    numbers = {tag: number for number, tag in enumerate(sorted({*gold, *said}))}
    of = [[numbers[tag] for tag in tags] for tags in (gold, said)]
    return classification(of[0], of[1], len(numbers))
