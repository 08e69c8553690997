"""How likely a model finds texts: perplexity, bits for each byte and each character.

Perplexity is of the model's own tokens, so models with other tokenizers are compared by bits for
each byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llmos.errors import InvalidRequest
from llmos.programs.metrics.score import Floats, Sums, own_cells, ratio

BITS = 1 / math.log(2)


class Likelihood(NamedTuple):
    """Of one text: the natural logarithm of its probability, over `num_tokens` that have one."""

    logprob: float
    num_tokens: int
    num_bytes: int
    num_chars: int


def likelihood_scores(texts: Sequence[Likelihood]) -> list[Sums]:
    """Of all tokens of all texts. Raises InvalidRequest where there are none."""
    if not sum(text.num_tokens for text in texts):
        raise InvalidRequest("no text has two tokens: there is nothing to predict", param="data")
    parts = np.array([list(text) for text in texts], dtype=np.float64)
    cells = own_cells(len(texts))
    return [
        Sums("perplexity", parts, cells, _perplexity, higher_is_better=False),
        Sums("nll_per_token", parts, cells, _nll, higher_is_better=False),
        Sums("bits_per_byte", parts, cells, _Per(2, BITS), higher_is_better=False),
        Sums("bits_per_char", parts, cells, _Per(3, BITS), higher_is_better=False),
    ]


def _perplexity(sums: Floats) -> Floats:
    with np.errstate(over="ignore"):
        made: Floats = np.exp(_nll(sums))
    return made


@dataclass(frozen=True, slots=True)
class _Per:
    """The negative logarithm for each of what column `number` counts."""

    number: int
    scale: float = 1.0

    def __call__(self, sums: Floats) -> Floats:
        return self.scale * ratio(-sums[..., 0], sums[..., self.number])


_nll = _Per(1)
