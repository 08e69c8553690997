"""Drawing the next token of one row in NumPy: the native driver's steps in the same order
(repetition, frequency and presence penalties, temperature, min_p, top_k, top_p), and its chance.

Legend: V vocabulary, C candidates.
"""

# ruff: noqa: N803, N806 (array names carry their shape)
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmos.abi.inference import Sampling
from llmos.drivers.sampling.params import Row, uniform

Floats = NDArray[np.float64]
Logits = NDArray[np.float32]


class RowSampler(Row):
    """`Row` over arrays of the host."""

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        seed: int | None = None,
        generated: Sequence[int] = (),
    ) -> None:
        super().__init__(sampling, prompt, seed, generated)
        self._counts_V: Floats | None = None
        self._seen_V: NDArray[np.bool_] | None = None

    def note(self, token_id: int) -> None:
        """A token was generated."""
        if self._counts_V is not None and self._seen_V is not None:
            self._counts_V[token_id] += 1
            self._seen_V[token_id] = True
        else:
            self._generated.append(token_id)

    def draw(self, logits_V: Logits, index: int) -> int | None:
        """Token `index` of the answer; None where the logits are not finite."""
        if self.penalized:
            logits_V = self._penalize(logits_V).astype(np.float32)
        best = int(logits_V.argmax())  # of logits that hold a NaN, one of those
        if not np.isfinite(logits_V[best]):
            return None
        if self.greedy:
            return best
        probs_V = _probabilities(logits_V, self.sampling)
        return _draw(probs_V, self.sampling, uniform(self.seed, index))

    def _penalize(self, logits_V: Logits) -> Floats:
        """The logits after the penalties: OpenAI's two, and CTRL's (arXiv:1909.05858)."""
        if self._counts_V is None or self._seen_V is None:
            counts = np.bincount(np.asarray(self._generated, np.int64), minlength=len(logits_V))
            self._counts_V = counts.astype(np.float64)
            self._seen_V = self._counts_V > 0
            self._seen_V[np.asarray(self._prompt, np.int64)] = True
        asked = self.sampling
        scores_V = logits_V.astype(np.float64)
        penalty = asked.repetition_penalty
        repeated_V = np.where(scores_V > 0, scores_V / penalty, scores_V * penalty)
        scores_V = np.where(self._seen_V, repeated_V, scores_V)
        scores_V -= asked.frequency_penalty * self._counts_V
        return scores_V - asked.presence_penalty * (self._counts_V > 0)


def _probabilities(logits_V: Logits, asked: Sampling) -> Floats:
    """After temperature and min_p; they need not sum to one."""
    # the largest logit becomes 0 first: a tiny temperature must not overflow
    scores_V = (logits_V.astype(np.float64) - float(logits_V.max())) / asked.temperature
    probs_V: Floats = np.exp(scores_V)
    probs_V /= probs_V.sum()
    if asked.min_p > 0:
        probs_V[probs_V < probs_V.max() * asked.min_p] = 0.0
    return probs_V


def _draw(probs_V: Floats, asked: Sampling, chance: float) -> int:
    """top_k, then top_p over what is left of it, then the draw among them by probability."""
    size = len(probs_V)
    if asked.top_p >= 1.0 and not 0 < asked.top_k < size:
        return _invert(probs_V, chance)
    if 0 < asked.top_k < size:
        # every token as likely as the k-th: ties are cut below, by the stable sort
        kth = np.partition(probs_V, size - asked.top_k)[size - asked.top_k]
        likely = (probs_V >= kth) & (probs_V > 0)
    else:
        # no token of the nucleus is less likely than this: all below sum to less than 1 - top_p
        likely = probs_V > (1.0 - asked.top_p) * probs_V.sum() / size
    index_C = likely.nonzero()[0]
    order_C = np.argsort(-probs_V[index_C], kind="stable")
    if asked.top_k > 0:
        order_C = order_C[: asked.top_k]
    sorted_C = probs_V[index_C][order_C]
    total = sorted_C.sum() if asked.top_k > 0 else probs_V.sum()
    kept_C = sorted_C.cumsum() - sorted_C < asked.top_p * total
    kept_C[0] = True
    return int(index_C[order_C[_invert(sorted_C * kept_C, chance)]])


def _invert(probs_V: Floats, chance: float) -> int:
    """The token whose stretch of the cumulated probabilities holds the number."""
    cumulated_V = probs_V.cumsum()
    found = int(cumulated_V.searchsorted(chance * cumulated_V[-1], side="right"))
    # a rounded-up product may equal the sum: the last token of any probability is the last answer
    return min(found, int(probs_V.nonzero()[0][-1]))
