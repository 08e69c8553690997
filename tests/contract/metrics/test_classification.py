"""Against scikit-learn, on random labels and probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as peer

from llmos.errors import InvalidRequest
from llmos.programs.metrics.classification import class_table, classified, label_scores
from llmos.programs.metrics.probabilities import (
    precision_recall_curve,
    probability_scores,
    reliability,
    roc_curve,
)
from llmos.programs.metrics.score import value_of

LABELS = ["bad", "good", "mixed", "none"]
pairs = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=2, max_size=40
).filter(lambda rows: len({label for row in rows for label in row}) > 1)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_scores_of_labels_are_those_of_scikit_learn(rows):
    gold, said = zip(*rows, strict=True)
    scores = {score.name: value_of(score) for score in label_scores(classified(gold, said))}
    assert scores.pop("accuracy") == pytest.approx(peer.accuracy_score(gold, said))
    assert scores.pop("mcc") == pytest.approx(peer.matthews_corrcoef(gold, said))
    assert scores.pop("kappa") == pytest.approx(
        peer.cohen_kappa_score(gold, said), nan_ok=True, abs=1e-12
    )
    recalls = peer.recall_score(
        gold, said, labels=sorted(set(gold)), average="macro", zero_division=0
    )
    assert scores.pop("balanced_accuracy") == pytest.approx(recalls)
    assert len(scores) == 9
    for name, value in scores.items():
        figure, average = name.split("_")
        of = getattr(peer, f"{figure}_score")
        assert value == pytest.approx(of(gold, said, average=average, zero_division=0)), name


@settings(max_examples=20, deadline=None)
@given(pairs)
def test_the_confusion_and_the_table_of_classes_are_too(rows):
    gold, said = zip(*rows, strict=True)
    found = classified(gold, said)
    assert found.confusion_CC.tolist() == (
        peer.confusion_matrix(gold, said, labels=found.labels).tolist()
    )
    table = peer.classification_report(gold, said, output_dict=True, zero_division=0)
    for row in class_table(found):
        theirs = table[row["label"]]
        assert row["support"] == theirs["support"]
        assert row["f1"] == pytest.approx(theirs["f1-score"])
        assert row["precision"] == pytest.approx(theirs["precision"])


def probabilities(num_classes: int, seed: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    gold = np.concatenate([np.arange(num_classes), draws.integers(0, num_classes, 50)])
    raw = draws.random((len(gold), num_classes)) + 0.01
    if ties:
        raw = np.round(raw * 3) + 1
    return gold, raw / raw.sum(1, keepdims=True)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_scores_of_two_classes_probabilities(seed, ties):
    gold, probs = probabilities(2, seed, ties=ties)
    scores = {score.name: value_of(score) for score in probability_scores(gold, probs)}
    assert scores["roc_auc"] == pytest.approx(peer.roc_auc_score(gold, probs[:, 1]))
    assert scores["average_precision"] == pytest.approx(
        peer.average_precision_score(gold, probs[:, 1])
    )
    assert scores["brier"] == pytest.approx(peer.brier_score_loss(gold, probs[:, 1]))
    assert scores["log_loss"] == pytest.approx(peer.log_loss(gold, probs))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_scores_of_many_classes_probabilities(seed, ties):
    gold, probs = probabilities(4, seed, ties=ties)
    scores = {score.name: value_of(score) for score in probability_scores(gold, probs)}
    assert scores["roc_auc"] == pytest.approx(
        peer.roc_auc_score(gold, probs, multi_class="ovr", average="macro")
    )
    assert scores["average_precision"] == pytest.approx(
        peer.average_precision_score(np.eye(4)[gold], probs, average="macro")
    )
    assert scores["log_loss"] == pytest.approx(peer.log_loss(gold, probs))


def test_the_curves_are_those_of_scikit_learn():
    gold, probs = probabilities(2, 3, ties=True)
    xs, ys = zip(*roc_curve(gold, probs[:, 1]), strict=True)
    theirs = peer.roc_curve(gold, probs[:, 1], drop_intermediate=False)
    assert xs == pytest.approx(theirs[0])
    assert ys == pytest.approx(theirs[1])
    recall, precision = zip(*precision_recall_curve(gold, probs[:, 1]), strict=True)
    theirs = peer.precision_recall_curve(gold, probs[:, 1])
    assert precision == pytest.approx(theirs[0][::-1][1:])
    assert recall == pytest.approx(theirs[1][::-1][1:])


def test_the_calibration_error_is_what_the_bins_say():
    probs = np.array([[0.95, 0.05], [0.95, 0.05], [0.45, 0.55], [0.4, 0.6]])
    gold = np.array([0, 1, 1, 1])
    scores = {score.name: value_of(score) for score in probability_scores(gold, probs, 10)}
    by_hand = (2 * abs(0.95 - 0.5) + abs(0.55 - 1) + abs(0.6 - 1)) / 4
    assert scores["ece"] == pytest.approx(by_hand)
    sure, right, num = zip(*reliability(gold, probs, 10), strict=True)
    assert sure == pytest.approx((0.575, 0.95))
    assert right == (1, 0.5)
    assert num == (2, 2)


def test_a_replicate_that_counts_examples_twice_is_scikit_learns_with_weights():
    gold, probs = probabilities(3, 5, ties=True)
    weights = np.random.default_rng(0).integers(0, 4, len(gold)).astype(float)
    auc, precision, *_ = probability_scores(gold, probs)
    found = [score.of(weights[None, :])[0] for score in (auc, precision)]
    aucs = [peer.roc_auc_score(gold == c, probs[:, c], sample_weight=weights) for c in range(3)]
    means = [
        peer.average_precision_score(gold == c, probs[:, c], sample_weight=weights)
        for c in range(3)
    ]
    assert found == pytest.approx([np.mean(aucs), np.mean(means)])


def test_nothing_and_one_class_are_refused():
    with pytest.raises(InvalidRequest, match="no examples"):
        classified([], [])
    with pytest.raises(InvalidRequest, match="single class"):
        classified(["good", "good"], ["good", "good"])
