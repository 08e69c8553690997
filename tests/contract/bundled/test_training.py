"""The recipe: the same weights twice, and again when it stops in between."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from tools.pilot import batches, paths, tokenizer, train

TINY = train.Recipe(
    steps=3,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    warmup_steps=2,
)


@pytest.fixture(autouse=True)
def _small_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools of a few batches, so that the generator does not write what no test reads."""
    monkeypatch.setattr(batches, "BATCHES_PER_POOL", 8)


@functools.cache
def _text() -> Tokenizer:
    return Tokenizer.from_file(str(paths.BUNDLE / "tokenizer.json"))


def _equal(first: train.Training, second: train.Training) -> bool:
    mine, other = first.model.state_dict(), second.model.state_dict()
    return all(torch.equal(value, other[name]) for name, value in mine.items())


def test_two_runs_are_equal(fixed_torch: None) -> None:
    first, second = train.run(TINY, _text()), train.run(TINY, _text())
    assert first.step == TINY.steps
    assert _equal(first, second)
    assert not _equal(first, train.Training(TINY))


def test_a_run_that_was_interrupted_is_equal(fixed_torch: None, tmp_path: Path) -> None:
    whole = train.run(TINY, _text())
    part = train.Training(TINY)
    part.learn(next(batches.batches(_text(), TINY.seed, 0)))
    part.save(tmp_path / "half.pt")
    resumed = train.run(TINY, _text(), start=tmp_path / "half.pt")
    assert _equal(whole, resumed)


def test_batches_are_padded_and_bounded() -> None:
    stream = batches.batches(_text(), 5, 0)
    for _, (ids, labels) in zip(range(batches.BATCHES_PER_POOL), stream, strict=False):
        assert ids.shape == labels.shape
        assert ids.numel() <= max(batches.TOKENS_PER_BATCH, ids.shape[1])
        assert ids.shape[1] <= tokenizer.CONTEXT_LENGTH
        learned = labels != tokenizer.IGNORED
        assert learned.any()
        assert torch.equal(ids[learned], labels[learned])


def test_rate_warms_up_stays_and_falls_to_nothing() -> None:
    recipe = train.Recipe(steps=1000, warmup_steps=50, decay_share=0.2)
    rates = [train.rate(recipe, step) for step in range(recipe.steps)]
    assert rates[0] < rates[25] < rates[49] == rates[500] == rates[799] == 1.0
    assert rates[900] < 1.0
    assert 0 < rates[-1] < 0.01
