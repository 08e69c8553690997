"""Drawing the next token of every row of a step.

What a row draws depends on its own logits, parameters, seed and position only: no generator is
shared, and no operation mixes rows. The order of the steps is vLLM's: repetition, frequency and
presence penalties, temperature, min_p, top_k, top_p.

Legend: N rows, V vocabulary.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Sequence

import torch

from llmos.abi.inference import Sampling
from llmos.errors import InvalidRequest
from llmos.weights.footprint import DRAW_ELEMENTS

GREEDY_BELOW = 1e-5
"""A temperature under this is zero: the most likely token, the first one of equals."""


def check(sampling: Sampling) -> None:
    """Raises InvalidRequest naming the parameter that is out of range."""
    limits = {
        "temperature": (0.0, math.inf),
        "top_p": (0.0, 1.0),
        "min_p": (0.0, 1.0),
        "top_k": (0, math.inf),
        "frequency_penalty": (-math.inf, math.inf),
        "presence_penalty": (-math.inf, math.inf),
        "repetition_penalty": (0.0, math.inf),
        "max_tokens": (0, math.inf),
    }
    for name, (low, high) in limits.items():
        value = getattr(sampling, name)
        if not math.isfinite(value) or not low <= value <= high:
            raise InvalidRequest(f"{name} is {value}, out of range", param=name)
    for name in ("top_p", "repetition_penalty"):
        if getattr(sampling, name) == 0:
            raise InvalidRequest(f"{name} must be above 0", param=name)


class RowSampler:
    """One request's drawing: its parameters, its seed, the tokens its penalties look at.

    All of it follows from the parameters, the seed and the tokens: one that goes on where another
    was is given the seed that was drawn and the tokens `generated`.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: list[int],
        seed: int | None = None,
        generated: Sequence[int] = (),
    ) -> None:
        self.sampling = sampling
        self.greedy = sampling.temperature < GREEDY_BELOW
        seed = sampling.seed if seed is None else seed
        self.seed = secrets.randbits(63) if seed is None else seed
        self.truncated = sampling.top_p < 1.0 or sampling.top_k > 0
        self.penalized = (
            sampling.frequency_penalty != 0
            or sampling.presence_penalty != 0
            or sampling.repetition_penalty != 1
        )
        self._prompt = prompt
        self._generated = list(generated)
        self._counts_V: torch.Tensor | None = None
        self._seen_V: torch.Tensor | None = None

    def note(self, token_id: int) -> None:
        """A token was generated."""
        if self._counts_V is None or self._seen_V is None:
            return
        with torch.inference_mode():  # where the counts were made
            self._counts_V[token_id] += 1
            self._seen_V[token_id] = True

    def penalize(self, logits_V: torch.Tensor) -> torch.Tensor:
        """The logits after the penalties: OpenAI's two, and CTRL's (arXiv:1909.05858)."""
        if self._counts_V is None or self._seen_V is None:
            drawn = torch.tensor(self._generated, dtype=torch.long, device=logits_V.device)
            self._counts_V = torch.bincount(drawn, minlength=len(logits_V)).to(logits_V)
            self._seen_V = self._counts_V > 0
            self._seen_V[torch.tensor(self._prompt, device=logits_V.device)] = True
        penalty = self.sampling.repetition_penalty
        repeated = torch.where(logits_V > 0, logits_V / penalty, logits_V * penalty)
        logits_V = torch.where(self._seen_V, repeated, logits_V)
        logits_V = logits_V - self.sampling.frequency_penalty * self._counts_V
        return logits_V - self.sampling.presence_penalty * (self._counts_V > 0)


def uniform(seed: int, index: int) -> float:
    """The number in [0, 1) that decides a request's token `index`.

    A hash of both, so that the only state of a request's generator is how far it is.
    """
    digest = hashlib.blake2b(b"%d:%d" % (seed, index), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def sample(logits_NV: torch.Tensor, rows: list[tuple[RowSampler, int]]) -> list[int | None]:
    """The next token of each row, None where its logits are not finite.

    `rows` has each row's sampler and the index of the token to draw. In host memory a few rows at a
    time: drawing takes many times the memory of the logits.
    """
    num_rows, vocab_size = logits_NV.shape
    if logits_NV.device.type != "cpu":
        return _sample(logits_NV, rows)
    at_once = max(1, DRAW_ELEMENTS // vocab_size)
    drawn: list[int | None] = []
    for begin in range(0, num_rows, at_once):
        block = slice(begin, begin + at_once)
        drawn += _sample(logits_NV[block], rows[block])
    return drawn


def _sample(logits_NV: torch.Tensor, rows: list[tuple[RowSampler, int]]) -> list[int | None]:
    """With one transfer to the host."""
    if any(sampler.penalized for sampler, _ in rows):
        logits_NV = _penalized(logits_NV, [sampler for sampler, _ in rows])
    best_N, chosen_N = logits_NV.max(dim=-1)
    drawn = [row for row, (sampler, _) in enumerate(rows) if not sampler.greedy]
    if drawn:
        index_N = torch.tensor(drawn, device=logits_NV.device)
        chosen_N = chosen_N.index_copy(
            0, index_N, _draw(logits_NV[index_N].float(), [rows[row] for row in drawn])
        )
    # of logits that hold a NaN or an infinity the largest is one
    tokens: list[int] = chosen_N.masked_fill(~best_N.isfinite(), -1).tolist()
    return [None if token < 0 else token for token in tokens]


def _penalized(logits_NV: torch.Tensor, samplers: list[RowSampler]) -> torch.Tensor:
    logits_NV = logits_NV.float().clone()
    for row, sampler in enumerate(samplers):
        if sampler.penalized:
            logits_NV[row] = sampler.penalize(logits_NV[row])
    return logits_NV


def _draw(logits_NV: torch.Tensor, rows: list[tuple[RowSampler, int]]) -> torch.Tensor:
    """Tokens drawn from float32 logits, N."""
    device = logits_NV.device
    params = [sampler.sampling for sampler, _ in rows]
    temperature_N = torch.tensor([p.temperature for p in params], device=device)
    # a row that is not finite is told by `sample`; here it must only not break the others
    logits_NV = logits_NV.nan_to_num(nan=0.0, posinf=0.0)
    # the largest logit becomes 0 first: a tiny temperature must not overflow
    logits_NV = (logits_NV - logits_NV.amax(dim=-1, keepdim=True)) / temperature_N[:, None]
    probs_NV = torch.softmax(logits_NV, dim=-1)
    if any(p.min_p > 0 for p in params):
        min_p_N = torch.tensor([p.min_p for p in params], device=device)
        floor_N = probs_NV.amax(dim=-1) * min_p_N
        probs_NV = probs_NV.masked_fill(probs_NV < floor_N[:, None], 0.0)
    uniform_N = torch.tensor(
        [uniform(sampler.seed, index) for sampler, index in rows],
        dtype=torch.float64,
        device="cpu",
    )
    tokens_N = _invert(probs_NV, uniform_N)
    for row, (sampler, _) in enumerate(rows):
        if sampler.truncated:
            tokens_N[row] = _draw_truncated(probs_NV[row], sampler.sampling, uniform_N[row])
    return tokens_N


def _invert(probs_NV: torch.Tensor, uniform_N: torch.Tensor) -> torch.Tensor:
    """The token whose stretch of the cumulated probabilities holds the uniform number."""
    cumulated_NV = probs_NV.cumsum(dim=-1)
    at_N = uniform_N.to(cumulated_NV) * cumulated_NV[:, -1]
    # a rounded-up product may equal the sum: the last token of any probability is the last answer
    last_N = (probs_NV > 0).long().cumsum(dim=-1).argmax(dim=-1)
    found_N = torch.searchsorted(cumulated_NV, at_N[:, None], right=True)[:, 0]
    return torch.minimum(found_N, last_N)


def _draw_truncated(
    probs_V: torch.Tensor, params: Sampling, uniform_: torch.Tensor
) -> torch.Tensor:
    """top_k, then top_p over what is left of it, then the draw among them by probability."""
    size = probs_V.shape[-1]
    if 0 < params.top_k < size:
        # every token as likely as the k-th: ties are cut below, by the stable sort
        kth = torch.topk(probs_V, params.top_k).values[-1]
        likely = (probs_V >= kth) & (probs_V > 0)
    else:
        # no token of the nucleus is less likely than this: all below sum to less than 1 - top_p
        likely = probs_V > (1.0 - params.top_p) * probs_V.sum() / size
    index_C = likely.nonzero()[:, 0]
    sorted_C, order_C = probs_V[index_C].sort(descending=True, stable=True)
    if params.top_k > 0:
        sorted_C, order_C = sorted_C[: params.top_k], order_C[: params.top_k]
    total = sorted_C.sum() if params.top_k > 0 else probs_V.sum()
    before_C = sorted_C.cumsum(dim=-1) - sorted_C
    kept = before_C < params.top_p * total
    kept[0] = True
    found = _invert((sorted_C * kept)[None], uniform_[None])[0]
    return index_C[order_C[found]]
