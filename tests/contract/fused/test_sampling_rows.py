"""NumPy's drawing is the native driver's: equal tokens for equal logits, seeds and places."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from llmos.abi.inference import Sampling
from llmos.drivers.native import sampling as native
from llmos.drivers.sampling.rows import RowSampler

CHOICES: dict[str, list[Any]] = {
    "temperature": [0.0, 0.01, 0.7, 1.0, 3.0],
    "top_p": [1.0, 0.95, 0.5, 0.01],
    "top_k": [0, 1, 5, 40, 10_000],
    "min_p": [0.0, 0.05, 0.5, 1.0],
    "frequency_penalty": [0.0, 0.6, -1.0],
    "presence_penalty": [0.0, 1.0],
    "repetition_penalty": [1.0, 1.3, 0.8],
}


@pytest.mark.parametrize("vocab_size", [7, 512, 5000])
def test_equal_to_the_native_drivers(vocab_size: int) -> None:
    rng = random.Random(vocab_size)
    noise = np.random.default_rng(vocab_size)
    num_differing = 0
    for number in range(400):
        asked = Sampling(**{k: rng.choice(v) for k, v in CHOICES.items()}, seed=number)
        prompt = rng.choices(range(vocab_size), k=5)
        ours, theirs = RowSampler(asked, prompt), native.RowSampler(asked, prompt)
        for index in range(3):
            logits = noise.normal(0, 3, vocab_size).astype(np.float32).round(rng.choice([0, 6]))
            token = ours.draw(logits, index)
            (expected,) = native.sample(torch.from_numpy(logits)[None], [(theirs, index)])
            assert token is not None
            assert expected is not None
            num_differing += token != expected  # theirs sums in float32
            ours.note(expected)
            theirs.note(expected)
    assert num_differing <= 2


def test_one_that_goes_on_draws_the_same() -> None:
    asked = Sampling(temperature=1.0, frequency_penalty=0.5, repetition_penalty=1.2, seed=9)
    logits = np.random.default_rng(1).normal(0, 2, (40, 300)).astype(np.float32)
    whole, drawn = RowSampler(asked, [3, 4]), []
    for index in range(40):
        token = whole.draw(logits[index], index)
        assert token is not None
        drawn.append(token)
        whole.note(token)
    for split in (0, 1, 17, 39):
        rest = RowSampler(asked, [3, 4], whole.seed, drawn[:split])
        for index in range(split, 40):
            assert rest.draw(logits[index], index) == drawn[index]
            rest.note(drawn[index])


def test_chance_follows_probability() -> None:
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    counts = np.zeros(4)
    for seed in range(8000):
        token = RowSampler(Sampling(seed=seed), []).draw(logits, 0)
        assert token is not None
        counts[token] += 1
    assert np.abs(counts / 8000 - [0.1, 0.2, 0.3, 0.4]).max() < 0.02


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("asked", [Sampling(), Sampling(temperature=0.0, presence_penalty=1.0)])
def test_logits_that_are_not_finite(bad: float, asked: Sampling) -> None:
    logits = np.zeros(10, np.float32)
    logits[4] = bad
    assert RowSampler(asked, [1]).draw(logits, 0) is None
    logits[4] = -np.inf  # a token that is forbidden
    assert RowSampler(asked, [1]).draw(logits, 0) is not None
