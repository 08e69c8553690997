"""Sampling against the plainest possible reference."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.abi.inference import Sampling
from llmos.drivers.native.sampling import RowSampler, sample
from llmos.drivers.sampling.params import check, uniform
from llmos.errors import InvalidRequest

SIZE = 40


def make_logits(seed: int) -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)) * 3


def reference_probs(
    logits: list[float], p: Sampling, generated: list[int], prompt: list[int]
) -> list[float]:
    """Probabilities after every step, one token and one rule at a time."""
    counts = Counter(generated)
    scores = []
    for token, logit in enumerate(logits):
        score = logit
        if token in counts or token in prompt:
            score = score / p.repetition_penalty if score > 0 else score * p.repetition_penalty
        score -= p.frequency_penalty * counts[token]
        score -= p.presence_penalty * (token in counts)
        scores.append(score / p.temperature)
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    weights = [w if w >= p.min_p * max(weights) else 0.0 for w in weights]
    order = sorted(range(len(weights)), key=lambda token: -weights[token])
    if p.top_k:
        for token in order[p.top_k :]:
            weights[token] = 0.0
    total, cumulated = sum(weights), 0.0
    for token in order:
        if cumulated >= p.top_p * total and cumulated > 0:
            weights[token] = 0.0
        cumulated += weights[token]
    total = sum(weights)
    return [w / total for w in weights]


def frequencies(
    logits: torch.Tensor, p: Sampling, prompt: list[int], generated: list[int], n: int
) -> list[float]:
    """How often each token is drawn over n seeds."""
    rows = []
    for seed in range(n):
        sampler = RowSampler(dataclass_replace(p, seed=seed), prompt)
        if generated:  # the counts begin with the first drawing
            sampler.penalize(logits)
            for token in generated:
                sampler.note(token)
        rows.append((sampler, len(generated)))
    drawn = Counter(sample(logits.expand(n, -1), rows))
    return [drawn[token] / n for token in range(SIZE)]


def dataclass_replace(p: Sampling, **fields: Any) -> Sampling:
    return Sampling(**({name: getattr(p, name) for name in p.__struct_fields__} | fields))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.6},
        {"min_p": 0.1},
        {"top_k": 6, "top_p": 0.7, "temperature": 1.7},
        {"min_p": 0.05, "top_p": 0.8, "top_k": 30},
        {"repetition_penalty": 1.8},
        {"frequency_penalty": 0.7, "presence_penalty": 0.9},
        {"repetition_penalty": 0.8, "presence_penalty": -1.0, "top_p": 0.9},
    ],
)
def test_frequencies_follow_the_reference(params: dict[str, Any]) -> None:
    p = Sampling(**params)
    prompt, generated, n = [3, 4, 5], [5, 6, 6, 7], 600
    logits = make_logits(1)
    expected = reference_probs(logits.tolist(), p, generated, prompt)
    found = frequencies(logits, p, prompt, generated, n)
    assert all(f == 0 for f, e in zip(found, expected, strict=True) if e == 0)
    distance = sum(abs(f - e) for f, e in zip(found, expected, strict=True)) / 2
    assert distance < 0.1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.data())
def test_neighbours_change_nothing(seed: int, data: st.DataObject) -> None:
    rng = random.Random(seed)

    def one(n: int) -> tuple[torch.Tensor, RowSampler, int]:
        p = Sampling(
            temperature=rng.choice([0.0, 0.3, 1.0, 2.0]),
            top_p=rng.choice([1.0, 0.9, 0.2]),
            top_k=rng.choice([0, 1, 5, 1000]),
            min_p=rng.choice([0.0, 0.2]),
            seed=rng.randrange(100),
            repetition_penalty=rng.choice([1.0, 1.3]),
        )
        return make_logits(n).round(), RowSampler(p, [1, 2]), rng.randrange(50)

    rows = [one(n) for n in range(data.draw(st.integers(1, 6)))]
    together = sample(torch.stack([r[0] for r in rows]), [r[1:] for r in rows])
    alone = [sample(r[0][None], [r[1:]])[0] for r in rows]
    assert together == alone


def test_greedy_takes_the_first_of_equals() -> None:
    logits = torch.tensor([[1.0, 5.0, 5.0, 0.0]])
    assert sample(logits, [(RowSampler(Sampling(temperature=0), [0]), 0)]) == [1]
    assert sample(logits, [(RowSampler(Sampling(temperature=1e-6), [0]), 0)]) == [1]


def test_tiny_temperatures_and_huge_logits_stay_finite() -> None:
    logits = torch.tensor([[3e38, -3e38, 1.0]])
    for params in ({"temperature": 1e-4}, {"temperature": 1e-4, "top_p": 0.5}):
        assert sample(logits, [(RowSampler(Sampling(seed=1, **params), [0]), 0)]) == [0]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_is_told_for_that_row_only(wrong: float) -> None:
    for params in ({}, {"top_p": 0.5}, {"top_k": 2}, {"min_p": 0.1}, {"presence_penalty": 1.0}):
        logits = torch.zeros(3, SIZE)
        logits[1, 7] = wrong
        rows = [(RowSampler(Sampling(temperature=0), [0]), 0)]
        rows += [(RowSampler(Sampling(seed=1, **params), [0]), 0)] * 2
        found = sample(logits, rows)
        assert found[1] is None
        assert found[0] == 0
        assert found[2] is not None
        logits[1] = wrong
        assert sample(logits, rows) == found


def test_half_precision() -> None:
    logits = make_logits(3).bfloat16()[None]
    for params in (
        {"temperature": 0},
        {"seed": 1},
        {"seed": 1, "top_p": 0.5, "frequency_penalty": 1},
    ):
        assert sample(logits, [(RowSampler(Sampling(**params), [0]), 0)])[0] in range(SIZE)


def test_a_seed_repeats_and_no_seed_does_not() -> None:
    assert RowSampler(Sampling(), [0]).seed != RowSampler(Sampling(), [0]).seed
    flat = torch.zeros(1, 100_000)

    def draw(seed: int, index: int) -> Any:
        return sample(flat, [(RowSampler(Sampling(seed=seed), [0]), index)])

    assert draw(5, 0) == draw(5, 0)
    assert draw(5, 0) != draw(6, 0)
    assert draw(5, 0) != draw(5, 1)


def test_uniform_numbers_are_uniform() -> None:
    numbers = [uniform(3, i) for i in range(4000)]
    assert all(0 <= u < 1 for u in numbers)
    assert abs(sum(numbers) / 4000 - 0.5) < 0.02
    assert max(abs(u - i / 4000) for i, u in enumerate(sorted(numbers))) < 0.03


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("nan")),
        ("frequency_penalty", float("inf")),
        ("max_tokens", -5),
    ],
)
def test_out_of_range(name: str, value: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(Sampling(**{name: value}))
    assert caught.value.param == name


def test_defaults_are_in_range() -> None:
    check(Sampling())
