"""Logits under a grammar's mask: each kind of tensor, and vocabularies that fill no last word."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmos.drivers.native.barring import bar


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab_size", [1, 31, 32, 33, 300])
def test_what_may_not_come_is_never_drawn(vocab_size: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(vocab_size)
    may_come = rng.random(vocab_size) < 0.5
    padded = np.zeros(-(-vocab_size // 32) * 32, dtype=np.bool_)
    padded[:vocab_size] = may_come
    allowed = np.packbits(padded, bitorder="little").view(np.int32)
    logits_NV = torch.randn(3, vocab_size).to(dtype)
    before = logits_NV.clone()
    bar(logits_NV[1], allowed)
    expected = before[1].masked_fill(~torch.from_numpy(may_come), -torch.inf)
    assert torch.equal(logits_NV[1], expected)
    assert torch.equal(logits_NV[::2], before[::2])


def test_what_is_no_number_stays_none() -> None:
    logits_V = torch.tensor([1.0, torch.nan, torch.inf, 2.0])
    bar(logits_V, np.array([0b1001], dtype=np.int32))
    assert logits_V.isnan().tolist() == [False, True, True, False]
