"""The rows of logits that a native driver draws from, on whichever engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llmos.drivers.native import sampling
from llmos.drivers.native.fused.runner import FusedRunner

Bits = dict[tuple[int, int], torch.Tensor]
"""By seed of the request and index of the token: what was drawn from last. Speculation may also
draw beyond the end of an answer."""


def record_bits(monkeypatch: pytest.MonkeyPatch) -> Bits:
    """Filled by every native driver of this process from now on."""
    seen: Bits = {}
    sample, draw = sampling.sample, FusedRunner._draw

    def sampling_torch(logits: torch.Tensor, rows: list[Any]) -> Any:
        for row, (sampler, index) in enumerate(rows):
            seen[sampler.seed, index] = logits[row].clone()
        return sample(logits, rows)

    def drawing_fused(self: FusedRunner, logits: torch.Tensor, works: list[Any]) -> Any:
        rows = iter(logits)
        for work in works:
            for ahead in range(work.num_wanted):
                index = len(work.request.generated) + ahead
                seen[work.request.sampler.seed, index] = next(rows).clone()
        return draw(self, logits, works)

    monkeypatch.setattr(sampling, "sample", sampling_torch)
    monkeypatch.setattr(FusedRunner, "_draw", drawing_fused)
    return seen


def rows_of(bits: Bits, seed: int, count: int) -> torch.Tensor:
    """What a request's first tokens were drawn from."""
    return torch.stack([bits[seed, index] for index in range(count)])
