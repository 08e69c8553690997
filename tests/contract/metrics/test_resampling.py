"""Intervals and tests: against what is known in closed form, and among themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from llmos.programs.metrics.classification import classified, label_scores
from llmos.programs.metrics.probabilities import probability_scores
from llmos.programs.metrics.resampling import compare, interval_of, mcnemar
from llmos.programs.metrics.score import counts_of, mean_of, value_of


def answers(seed: int, num: int, share_right: float) -> tuple[list[str], list[str]]:
    draws = np.random.default_rng(seed)
    gold = [str(one) for one in draws.integers(0, 3, num)]
    right = draws.random(num) < share_right
    said = [g if r else str((int(g) + 1) % 3) for g, r in zip(gold, right, strict=True)]
    return gold, said


def test_the_interval_of_an_accuracy_is_that_of_its_binomial():
    right = np.array([1.0] * 800 + [0.0] * 200)
    low, high = interval_of(mean_of("accuracy", right), num_resamples=4000)
    spread = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert (low, high) == pytest.approx((0.8 - spread, 0.8 + spread), abs=0.003)


def test_the_interval_covers_as_often_as_it_says():
    """Of 200 samples from one source, about 95 in a hundred have the true value in theirs."""
    draws, covered = np.random.default_rng(1), 0
    for seed in range(200):
        values = draws.normal(0.3, 1.0, 80)
        low, high = interval_of(mean_of("mean", values), num_resamples=400, seed=seed)
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 198


def test_draws_by_cells_and_by_examples_are_of_one_distribution():
    gold, said = answers(0, 300, 0.7)
    by_cells = next(s for s in label_scores(classified(gold, said)) if s.name == "f1_macro")
    draws = np.random.default_rng(5)
    found = []
    for _ in range(600):
        chosen = draws.integers(0, 300, 300)
        sample = classified([gold[n] for n in chosen], [said[n] for n in chosen])
        scores = {score.name: score for score in label_scores(sample)}
        found.append(value_of(scores["f1_macro"]))
    ours = interval_of(by_cells, num_resamples=4000)
    assert tuple(ours) == pytest.approx(tuple(np.quantile(found, [0.025, 0.975])), abs=0.012)


def test_a_slice_is_the_score_of_its_examples_alone():
    gold, said = answers(1, 60, 0.6)
    chosen = np.arange(60) % 3 == 0
    alone = classified(
        [g for g, c in zip(gold, chosen, strict=True) if c],
        [s for s, c in zip(said, chosen, strict=True) if c],
    )
    for whole, part in zip(label_scores(classified(gold, said)), label_scores(alone), strict=True):
        assert value_of(whole, chosen) == pytest.approx(value_of(part)), whole.name
    assert counts_of(whole, chosen).sum() == 20


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 9), (40, 20), (700, 640)])
def test_mcnemar_is_the_exact_binomial_test(gained, lost):
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected)


def test_accuracies_are_compared_by_mcnemar():
    old = mean_of("accuracy", [1, 1, 0, 0, 0, 0, 0, 0, 1, 0])
    new = mean_of("accuracy", [1, 1, 1, 1, 1, 1, 1, 1, 0, 0])
    found = compare(new, old)
    assert found.test == "McNemar's exact test"
    assert found.value == pytest.approx(0.5)
    assert found.p_value == pytest.approx(binomtest(6, 7).pvalue)
    assert found.p_worse < 0.05


@pytest.mark.parametrize("name", ["f1_macro", "mcc"])
def test_what_is_better_for_sure_is_told_from_what_is_alike(name):
    gold, weak = answers(2, 400, 0.6)
    _, strong = answers(2, 400, 0.8)
    scores = [
        next(s for s in label_scores(classified(gold, said)) if s.name == name)
        for said in (weak, strong)
    ]
    found = compare(scores[1], scores[0])
    assert found.test == "paired permutation"
    assert found.interval.low > 0
    assert found.p_value < 0.01
    assert found.p_worse == 0
    same = compare(scores[0], scores[0])
    assert (same.value, same.p_value, same.p_worse) == (0, 1, 0.5)


def test_chance_alone_is_found_significant_as_rarely_as_the_level_says():
    draws, num_significant = np.random.default_rng(11), 0
    for seed in range(150):
        shared = draws.normal(size=40)
        a, b = (mean_of("x", shared + draws.normal(size=40)) for _ in range(2))
        num_significant += compare(a, b, num_resamples=200, seed=seed).p_value <= 0.05
    assert num_significant <= 15


def test_what_is_no_sum_is_compared_by_the_bootstrap():
    draws = np.random.default_rng(3)
    gold = draws.integers(0, 2, 200)
    good = np.clip(gold * 0.5 + draws.random(200) * 0.5, 0, 1)
    noise = draws.random(200)
    auc, random = (probability_scores(gold, np.stack([1 - p, p], axis=1))[0] for p in (good, noise))
    found = compare(auc, random, num_resamples=300)
    assert found.test == "paired bootstrap"
    assert found.interval.low > 0.2
    assert found.p_value < 0.01


def test_of_errors_less_is_better():
    worse = mean_of("loss", np.full(50, 2.0) + np.arange(50) % 2, higher_is_better=False)
    better = mean_of("loss", np.full(50, 1.0) + np.arange(50) % 3 / 3, higher_is_better=False)
    assert compare(worse, better).p_worse == 1
    assert compare(better, worse).p_worse == 0


def test_what_has_other_examples_is_no_pair():
    with pytest.raises(ValueError, match="not paired"):
        compare(mean_of("x", [1.0, 2.0]), mean_of("x", [1.0]))


def test_one_seed_is_one_interval():
    score = mean_of("x", np.random.default_rng(0).random(100))
    assert interval_of(score, seed=4) == interval_of(score, seed=4)
    assert interval_of(score, seed=4) != interval_of(score, seed=5)
