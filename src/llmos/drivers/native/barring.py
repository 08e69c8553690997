"""What a grammar does not allow, taken out of a row of logits.

A sum with 0 or minus infinity, eight tokens looked up at a time: filling under a mask branches at
each token and takes two to six times as long.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

import functools
import math

import numpy as np
import torch

from llmos.drivers.text.grammar import Allowed

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_TERMS = np.where(_BITS, np.float32(0), np.float32(-math.inf))
"""By a byte of `Allowed`, what is added to its eight tokens."""


def bar(logits_V: torch.Tensor, allowed: Allowed) -> None:
    """Minus infinity, in place, for what may not come. What is no number is none afterwards."""
    octets = allowed.view(np.uint8)
    if logits_V.device.type == "cpu" and logits_V.dtype == torch.float32:
        row_V = logits_V.numpy()
        with np.errstate(invalid="ignore"):  # of infinities
            row_V += _TERMS.take(octets, axis=0).reshape(-1)[: len(row_V)]
    else:
        terms = _terms(logits_V.device)
        index = torch.from_numpy(octets).to(logits_V.device).long()
        logits_V += terms[index].view(-1)[: len(logits_V)]


@functools.cache
def _terms(device: torch.device) -> torch.Tensor:
    return torch.from_numpy(_TERMS).to(device)
