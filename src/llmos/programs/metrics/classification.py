"""Labels against labels: accuracy, precision, recall, F1, MCC, kappa, and the confusion of classes.

As scikit-learn defines them (a test sees to it), with 0 for what divides by nothing; averages are
over the classes that occur, in the data or in what was said.

Legend: N examples, C classes.
"""

# ruff: noqa: N802, N815 (array names carry their shape)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmos.errors import InvalidRequest
from llmos.programs.metrics.score import Floats, Ints, Sums, mean_of, ratio


@dataclass(frozen=True, slots=True, eq=False)
class Classified:
    """What examples are and what was said of them, as indices into `labels`."""

    labels: list[str]
    gold_N: Ints
    said_N: Ints

    @property
    def confusion_CC(self) -> Ints:
        """Rows are what examples are, columns what was said."""
        size = len(self.labels)
        codes = self.gold_N * size + self.said_N
        return np.bincount(codes, minlength=size * size).reshape(size, size)


def classified(gold: Sequence[str], said: Sequence[str], labels: Sequence[str] = ()) -> Classified:
    """Classes in the order of `labels`, then of their names. Raises InvalidRequest for no examples,
    and for a single class in all that was given and said."""
    if len(gold) != len(said):
        raise ValueError(f"{len(gold)} examples, {len(said)} answers")
    if not gold:
        raise InvalidRequest("there are no examples to score", param="data")
    known = dict.fromkeys(labels)
    known.update(dict.fromkeys(sorted({*gold, *said} - known.keys())))
    if len(set(gold)) == 1 and len(known) == 1:
        text = f"every example is {gold[0]!r}: nothing can be told of a single class"
        raise InvalidRequest(text, param="data")
    index = {label: number for number, label in enumerate(known)}
    made = [np.array([index[one] for one in given], dtype=np.int64) for given in (gold, said)]
    return Classified(list(known), *made)


def label_scores(of: Classified) -> list[Sums]:
    """All that follow from labels alone; accuracy first."""
    size = len(of.labels)
    codes, cells = np.unique(of.gold_N * size + of.said_N, return_inverse=True)
    gold, said = np.divmod(codes, size)
    eye = np.eye(size)
    right = (gold == said).astype(np.float64)
    parts = np.concatenate([eye[gold] * right[:, None], eye[gold], eye[said]], axis=1)
    cells = cells.astype(np.int64)
    averaged = [
        Sums(f"{figure}_{average}", parts, cells, Average(figure, average))
        for figure in ("f1", "precision", "recall")
        for average in ("macro", "micro", "weighted")
    ]
    return [
        mean_of("accuracy", of.gold_N == of.said_N),
        *averaged,
        Sums("balanced_accuracy", parts, cells, _balanced),
        Sums("mcc", parts, cells, _mcc),
        Sums("kappa", parts, cells, _kappa),
    ]


@dataclass(frozen=True, slots=True)
class Average:
    """Of a figure over classes, from sums [..., 3C]: right, there, said, of each class."""

    figure: str
    average: str

    def __call__(self, sums: Floats) -> Floats:
        right, there, said = np.split(sums, 3, axis=-1)
        if self.average == "micro":
            right, there, said = (part.sum(-1) for part in (right, there, said))
            return figure_of(self.figure, right, there, said)
        values = figure_of(self.figure, right, there, said)
        occurs = ((there + said) > 0).astype(np.float64)
        weights = there if self.average == "weighted" else occurs
        return ratio((values * weights).sum(-1), weights.sum(-1), 0.0)


def figure_of(name: str, right: Floats, there: Floats, said: Floats) -> Floats:
    """`precision`, `recall` or `f1`, element by element; 0 for what divides by nothing."""
    if name == "precision":
        return ratio(right, said, 0.0)
    return ratio(right, there, 0.0) if name == "recall" else ratio(2 * right, there + said, 0.0)


def _balanced(sums: Floats) -> Floats:
    """The mean recall of the classes that are there."""
    right, there, _ = np.split(sums, 3, axis=-1)
    occurs = (there > 0).astype(np.float64)
    return ratio((ratio(right, there, 0.0) * occurs).sum(-1), occurs.sum(-1))


def _mcc(sums: Floats) -> Floats:
    """Gorodkin (2004), from the sums of rows and columns of the confusion alone."""
    right, there, said = np.split(sums, 3, axis=-1)
    total = there.sum(-1)
    together = right.sum(-1) * total - (there * said).sum(-1)
    of_there = total**2 - (there**2).sum(-1)
    of_said = total**2 - (said**2).sum(-1)
    return ratio(together, np.sqrt(of_there * of_said), 0.0)


def _kappa(sums: Floats) -> Floats:
    """Cohen (1960)."""
    right, there, said = np.split(sums, 3, axis=-1)
    total = there.sum(-1)
    by_chance = (there * said).sum(-1) / np.maximum(total, 1) ** 2
    agreed = right.sum(-1) / np.maximum(total, 1)
    return ratio(agreed - by_chance, 1 - by_chance)


def class_table(of: Classified) -> list[dict[str, Any]]:
    """A row for each class: what was right of it, how often it is there and was said."""
    confusion = of.confusion_CC.astype(np.float64)
    return table_of(of.labels, np.diag(confusion), confusion.sum(1), confusion.sum(0))


def table_of(names: list[str], right: Floats, there: Floats, said: Floats) -> list[dict[str, Any]]:
    """By name; all three are counts."""
    figures = {name: figure_of(name, right, there, said) for name in ("precision", "recall", "f1")}
    return [
        {
            "label": label,
            **{name: float(values[number]) for name, values in figures.items()},
            "support": int(there[number]),
            "said": int(said[number]),
        }
        for number, label in enumerate(names)
    ]
