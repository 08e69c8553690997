"""How good probabilities are: ROC-AUC, average precision, calibration, log loss, and their curves.

As scikit-learn has ROC-AUC (one against the rest, the mean of classes), average precision, log loss
and Brier's score; the calibration error in equal bins is that of Guo et al. (2017).

Legend: N examples, C classes, U cells, R replicates.
"""

# ruff: noqa: N803, N806, N815 (array names carry their shape)
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmos.programs.metrics.score import Floats, Ints, Score, Sums, mean_of, own_cells, ratio

NUM_BINS = 15
SMALLEST = float(np.finfo(np.float64).eps)
MAX_POINTS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """A score of how well numbers order what is (1) before what is not (0), with ties."""

    name: str
    scores_N: Floats
    is_NC: Floats
    order_CN: Ints
    is_last_CN: Floats
    average_precision: bool = False
    higher_is_better: bool = True

    @property
    def num_examples(self) -> int:
        return len(self.scores_N)

    @property
    def cells(self) -> Ints:
        return own_cells(self.num_examples)

    def of(self, counts_RU: Floats) -> Floats:
        """The mean of the classes for which it is defined."""
        made = np.stack([self._of_class(counts_RU, c) for c in range(self.is_NC.shape[1])])
        told = ~np.isnan(made)
        return ratio(np.where(told, made, 0.0).sum(0), told.sum(0).astype(np.float64))

    def _of_class(self, counts_RU: Floats, number: int) -> Floats:
        """By the area under the curve through the thresholds, highest first."""
        order, last = self.order_CN[number], self.is_last_CN[number] > 0
        is_N = self.is_NC[order, number]
        weights = counts_RU[:, order]
        right = np.cumsum(weights * is_N, axis=1)[:, last]
        wrong = np.cumsum(weights * (1 - is_N), axis=1)[:, last]
        num_is, num_not = right[:, -1], wrong[:, -1]
        if self.average_precision:
            precision = ratio(right, right + wrong, 0.0)
            gains = np.diff(right, axis=1, prepend=0.0)
            return ratio((precision * gains).sum(1), num_is)
        middle = right - np.diff(right, axis=1, prepend=0.0) / 2
        area = (middle * np.diff(wrong, axis=1, prepend=0.0)).sum(1)
        return ratio(area, num_is * num_not)


def _ranked(name: str, gold_N: Ints, probs_NC: Floats, *, average_precision: bool) -> Ranked:
    """Of two classes the second is what is looked for; of more, each against the rest."""
    columns = [1] if probs_NC.shape[1] == 2 else list(range(probs_NC.shape[1]))
    is_NC = np.stack([(gold_N == c).astype(np.float64) for c in columns], axis=1)
    orders, lasts = [], []
    for c in columns:
        order = np.argsort(-probs_NC[:, c], kind="stable")
        ordered = probs_NC[order, c]
        orders.append(order)
        lasts.append(np.append(ordered[1:] != ordered[:-1], True).astype(np.float64))
    return Ranked(name, probs_NC[:, 0], is_NC, np.stack(orders), np.stack(lasts), average_precision)


def probability_scores(gold_N: Ints, probs_NC: Floats, num_bins: int = NUM_BINS) -> list[Score]:
    """Of probabilities in the order of the classes, each row summing to 1."""
    there = probs_NC[np.arange(len(gold_N)), gold_N]
    brier = ((probs_NC - np.eye(probs_NC.shape[1])[gold_N]) ** 2).sum(1)
    if probs_NC.shape[1] == 2:
        brier = brier / 2  # as it is commonly told of two classes
    losses = -np.log(np.clip(there, SMALLEST, 1 - SMALLEST))
    return [
        _ranked("roc_auc", gold_N, probs_NC, average_precision=False),
        _ranked("average_precision", gold_N, probs_NC, average_precision=True),
        calibration_error(gold_N, probs_NC, num_bins),
        mean_of("brier", brier, higher_is_better=False),
        mean_of("log_loss", losses, higher_is_better=False),
    ]


def calibration_error(gold_N: Ints, probs_NC: Floats, num_bins: int = NUM_BINS) -> Sums:
    """By how much the surest class's probability misses how often it is right, on average."""
    sure, right, bins = _binned(gold_N, probs_NC, num_bins)
    in_bin = np.eye(num_bins)[bins]
    parts = np.concatenate([in_bin * sure[:, None], in_bin * right[:, None], in_bin], axis=1)
    return Sums("ece", parts, own_cells(len(gold_N)), _gap, higher_is_better=False)


def _gap(sums: Floats) -> Floats:
    sure, right, num = np.split(sums, 3, axis=-1)
    return ratio(np.abs(sure - right).sum(-1), num.sum(-1))


def _binned(gold_N: Ints, probs_NC: Floats, num_bins: int) -> tuple[Floats, Floats, Ints]:
    sure = probs_NC.max(1)
    right = (probs_NC.argmax(1) == gold_N).astype(np.float64)
    bins = np.clip(np.ceil(sure * num_bins) - 1, 0, num_bins - 1).astype(np.int64)
    return sure, right, bins


# curves, for people


def roc_curve(is_N: Ints, scores_N: Floats) -> list[tuple[float, float]]:
    """(share of what is not that is taken, share of what is) for falling thresholds."""
    right, wrong = _steps(is_N, scores_N)
    if not right[-1] or not wrong[-1]:
        return []
    return _thin(np.append(0, wrong / wrong[-1]), np.append(0, right / right[-1]))


def precision_recall_curve(is_N: Ints, scores_N: Floats) -> list[tuple[float, float]]:
    """(recall, precision) for falling thresholds."""
    right, wrong = _steps(is_N, scores_N)
    if not right[-1]:
        return []
    return _thin(right / right[-1], right / (right + wrong))


def reliability(
    gold_N: Ints, probs_NC: Floats, num_bins: int = NUM_BINS
) -> list[tuple[float, float, int]]:
    """For each bin that has any: (mean probability, share that is right, how many)."""
    sure, right, bins = _binned(gold_N, probs_NC, num_bins)
    num = np.bincount(bins, minlength=num_bins)
    of_sure = np.bincount(bins, sure, minlength=num_bins)
    of_right = np.bincount(bins, right, minlength=num_bins)
    return [
        (float(of_sure[b] / num[b]), float(of_right[b] / num[b]), int(num[b]))
        for b in range(num_bins)
        if num[b]
    ]


def _steps(is_N: Ints, scores_N: Floats) -> tuple[Floats, Floats]:
    order = np.argsort(-scores_N, kind="stable")
    ordered, is_it = scores_N[order], is_N[order].astype(np.float64)
    last = np.append(ordered[1:] != ordered[:-1], True)
    return np.cumsum(is_it)[last], np.cumsum(1 - is_it)[last]


def _thin(xs: Floats, ys: Floats) -> list[tuple[float, float]]:
    """At most MAX_POINTS of them, the first and the last among these."""
    keep = np.unique(np.linspace(0, len(xs) - 1, min(len(xs), MAX_POINTS)).round().astype(int))
    return [(float(xs[n]), float(ys[n])) for n in keep]
