"""The kernels draw what `sampling` does for the same uniform number, up to rounding."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
import torch

from llmos.abi.inference import Sampling
from llmos.drivers.native import sampling
from llmos.drivers.native.fused import binding, build
from llmos.drivers.native.fused.drawing import drawing
from llmos.drivers.native.fused.engine import Engine
from llmos.drivers.native.sampling import RowSampler
from llmos.drivers.sampling.params import uniform
from tests.contract.fused.products import open_head

NUM = 250
EPS = 1e-5
"""Of cumulated float32 probabilities: a number nearer to a bound may fall on either side."""


@cache
def engine(vocab_size: int) -> Engine:
    library = binding.Library(build.library())
    return open_head(library, torch.ones(1, 1), torch.ones(vocab_size, 1), num_threads=2)


def rows(vocab_size: int, seed: int = 1) -> torch.Tensor:
    return 3 * torch.randn(NUM, vocab_size, generator=torch.Generator().manual_seed(seed))


def drawn(logits: torch.Tensor, samplers: list[RowSampler]) -> list[int | None]:
    """As the runner does it."""
    made = logits.clone()
    for row, sampler in enumerate(samplers):
        if sampler.penalized:
            made[row] = sampler.penalize(made[row])
    drawings = [drawing(sampler, 0) for sampler in samplers]
    return engine(logits.shape[1]).draw(made, drawings)


def stretch(logits: torch.Tensor, how: Sampling, token: int) -> tuple[float, float]:
    """Between which uniform numbers a token is drawn, in float64, of one row without penalties."""
    probs = ((logits.double() - logits.max()) / how.temperature).softmax(-1)
    probs[probs < how.min_p * probs.max()] = 0
    order = torch.arange(len(probs))
    if 0 < how.top_k < len(probs) or how.top_p < 1:
        probs, order = probs.sort(descending=True, stable=True)
        if how.top_k:
            probs[how.top_k :] = 0
        probs[probs.cumsum(0) - probs >= how.top_p * probs.sum()] = 0
    probs = probs / probs.sum()
    at = int((order == token).nonzero())
    end = float(probs.cumsum(0)[at])
    return end - float(probs[at]), end


@pytest.mark.parametrize("vocab_size", [5, 17, 1024, 1031, 5000])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.3},
        {"temperature": 50.0},
        {"temperature": 2e-5},
        {"min_p": 0.05},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 4000},
        {"top_p": 0.6},
        {"top_p": 0.999},
        {"top_p": 1e-6},
        {"top_k": 40, "top_p": 0.9, "min_p": 0.01, "temperature": 1.3},
    ],
)
def test_draws_agree(vocab_size: int, params: dict[str, Any]) -> None:
    logits = rows(vocab_size)
    samplers = [RowSampler(Sampling(**params, seed=n), [1]) for n in range(NUM)]
    found = drawn(logits, samplers)
    expected = sampling.sample(logits, [(sampler, 0) for sampler in samplers])
    differing = [n for n in range(NUM) if found[n] != expected[n]]
    assert len(differing) <= NUM // 50
    for n, token in enumerate(found):
        assert token is not None
        low, high = stretch(logits[n], samplers[n].sampling, token)
        assert low - EPS <= uniform(n, 0) <= high + EPS


@pytest.mark.parametrize(
    "params",
    [
        {"repetition_penalty": 1.8},
        {"frequency_penalty": 0.7, "presence_penalty": 0.9, "top_p": 0.8},
        {"repetition_penalty": 0.8, "presence_penalty": -1.0, "temperature": 0.0},
    ],
)
def test_penalties_agree(params: dict[str, Any]) -> None:
    rng = random.Random(2)
    logits = rows(300, 2)

    def make() -> list[RowSampler]:
        rng.seed(3)
        return [
            RowSampler(
                Sampling(**params, seed=n),
                rng.choices(range(300), k=20),
                generated=rng.choices(range(300), k=9),
            )
            for n in range(NUM)
        ]

    expected = sampling.sample(logits, [(sampler, 0) for sampler in make()])
    found = drawn(logits, make())
    assert sum(a != b for a, b in zip(found, expected, strict=True)) <= NUM // 100
    assert found != drawn(logits, [RowSampler(Sampling(seed=n), [1]) for n in range(NUM)])


def test_the_first_of_equals_is_the_greedy_one() -> None:
    logits = torch.zeros(3, 1031)
    logits[1, [40, 41, 1030]] = 2.0
    logits[2, 1030] = 1.0
    samplers = [RowSampler(Sampling(temperature=0.0), [1])] * 3
    assert drawn(logits, samplers) == [0, 40, 1030]
    assert drawn(logits, [RowSampler(Sampling(top_k=1, seed=n), [1]) for n in range(3)]) == [
        0,
        40,
        1030,
    ]


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {}, {"top_k": 5}, {"top_p": 0.5}])
@pytest.mark.parametrize("place", [0, 15, 16, 1023, 1030])
def test_what_is_not_finite_is_told(place: int, params: dict[str, Any]) -> None:
    logits = rows(1031)[:4].clone()
    logits[0, place] = float("nan")
    logits[1, place] = float("inf")
    logits[2] = float("-inf")
    logits[3, place] = float("-inf")  # one that is never drawn
    samplers = [RowSampler(Sampling(**params, seed=n), [1]) for n in range(4)]
    found = drawn(logits, samplers)
    assert found[:3] == [None] * 3
    assert found[3] not in {None, place}
    assert found == sampling.sample(logits, [(sampler, 0) for sampler in samplers])
