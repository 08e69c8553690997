"""Drawing the next token of every row of a step.

What a row draws depends on its own logits, parameters, seed and position only: no generator is
shared, and no operation mixes rows. The order of the steps is vLLM's: repetition, frequency and
presence penalties, temperature, min_p, top_k, top_p.

Legend: N rows, V vocabulary.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

from collections.abc import Sequence

import torch

from llmos.abi.inference import Sampling
from llmos.drivers.native.barring import bar
from llmos.drivers.native.transfer import to_device
from llmos.drivers.sampling.params import Row, uniform
from llmos.drivers.text.grammar import GrammarState
from llmos.errors import InvalidRequest
from llmos.weights.footprint import DRAW_ELEMENTS


class RowSampler(Row):
    """`Row` over tensors, and in a grammar."""

    def __init__(
        self,
        sampling: Sampling,
        prompt: list[int],
        seed: int | None = None,
        generated: Sequence[int] = (),
        grammar: GrammarState | None = None,
    ) -> None:
        super().__init__(sampling, prompt, seed, generated)
        self.grammar = grammar
        self.shaped = (
            self.penalized
            or bool(sampling.logit_bias)
            or sampling.logprobs is not None
            or grammar is not None
        )
        self.recorded: list[Recorded] = []
        """Of tokens drawn since it was last emptied, where log-probabilities are asked for."""
        self._raw_NV: list[torch.Tensor] = []
        self._counts_V: torch.Tensor | None = None
        self._seen_V: torch.Tensor | None = None

    @property
    def error(self) -> InvalidRequest | None:
        """Why it cannot draw any more."""
        why = None if self.grammar is None else self.grammar.error
        if why is None:
            return None
        return InvalidRequest(f"the answer cannot go on in its grammar: {why}", param="grammar")

    def note(self, token_id: int) -> None:
        """A token was generated."""
        if self.grammar is not None:
            self.grammar.accept(token_id)
        if self._counts_V is None or self._seen_V is None:
            return
        with torch.inference_mode():  # where the counts were made
            self._counts_V[token_id] += 1
            self._seen_V[token_id] = True

    def shape(self, logits_NV: torch.Tensor, guessed: Sequence[int] = ()) -> None:
        """Make of float logits, in place, those that are drawn from.

        Rows are those of the next token and of the ones after each of `guessed`.
        """
        if self.sampling.logprobs is not None:
            self._raw_NV = list(torch.log_softmax(logits_NV, dim=-1))
        if self.penalized:
            logits_NV[0] = self.penalize(logits_NV[0])
        if self.sampling.logit_bias:
            (ids,) = to_device(logits_NV.device, [i for i, _ in self.sampling.logit_bias])
            biases = [bias for _, bias in self.sampling.logit_bias]
            (added,) = to_device(logits_NV.device, biases, dtype=torch.float32)
            logits_NV[:, ids] += added
        if self.grammar is not None:
            for row, allowed in enumerate(self.grammar.ahead(guessed)):
                bar(logits_NV[row], allowed)

    def record(self, tokens: Sequence[int]) -> None:
        """These were drawn from the rows shaped last."""
        most = self.sampling.logprobs
        if most is None:
            return
        for raw_V, token in zip(self._raw_NV, tokens, strict=False):
            self.recorded.append(_recorded(raw_V, token, most))
        self._raw_NV = []

    def penalize(self, logits_V: torch.Tensor) -> torch.Tensor:
        """The logits after the penalties: OpenAI's two, and CTRL's (arXiv:1909.05858)."""
        if self._counts_V is None or self._seen_V is None:
            drawn, prompt = to_device(logits_V.device, self._generated, self._prompt)
            ones = torch.ones(len(drawn), dtype=logits_V.dtype, device=logits_V.device)
            self._counts_V = torch.zeros_like(logits_V).index_add_(0, drawn, ones)
            self._seen_V = self._counts_V > 0
            self._seen_V[prompt] = True
        penalty = self.sampling.repetition_penalty
        repeated = torch.where(logits_V > 0, logits_V / penalty, logits_V * penalty)
        logits_V = torch.where(self._seen_V, repeated, logits_V)
        logits_V = logits_V - self.sampling.frequency_penalty * self._counts_V
        return logits_V - self.sampling.presence_penalty * (self._counts_V > 0)


Recorded = tuple[int, float, list[tuple[int, float]]]
"""A drawn token, its log-probability, and the likeliest ones with theirs."""


def _recorded(raw_V: torch.Tensor, token: int, most: int) -> Recorded:
    values, ids = raw_V.topk(most)
    return token, float(raw_V[token]), list(zip(ids.tolist(), values.tolist(), strict=True))


def priced(logits_NV: torch.Tensor, tokens: Sequence[int], most: int) -> list[Recorded]:
    """Of given tokens, one after each row: what log-probabilities they have there."""
    raw_NV = torch.log_softmax(logits_NV[: len(tokens)].float(), dim=-1)
    return [_recorded(raw_V, token, most) for raw_V, token in zip(raw_NV, tokens, strict=True)]


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
    if any(sampler.shaped for sampler, _ in rows):
        logits_NV = logits_NV.float().clone()
        for row, (sampler, _) in enumerate(rows):
            if sampler.shaped:
                sampler.shape(logits_NV[row : row + 1])
    best_N, chosen_N = logits_NV.max(dim=-1)
    drawn = [row for row, (sampler, _) in enumerate(rows) if not sampler.greedy]
    if drawn:
        (index_N,) = to_device(logits_NV.device, drawn)
        chosen_N = chosen_N.index_copy(
            0, index_N, _draw(logits_NV[index_N].float(), [rows[row] for row in drawn])
        )
    # of logits that hold a NaN or an infinity the largest is one
    tokens: list[int] = chosen_N.masked_fill(~best_N.isfinite(), -1).tolist()
    for (sampler, _), token in zip(rows, tokens, strict=True):
        if sampler.shaped and token >= 0:
            sampler.record((token,))
    return [None if token < 0 else token for token in tokens]


def _draw(logits_NV: torch.Tensor, rows: list[tuple[RowSampler, int]]) -> torch.Tensor:
    """Tokens drawn from float32 logits, N."""
    params = [sampler.sampling for sampler, _ in rows]
    temperature_N, min_p_N, uniform_N = to_device(
        logits_NV.device,
        [p.temperature for p in params],
        [p.min_p for p in params],
        [uniform(sampler.seed, index) for sampler, index in rows],
        dtype=torch.float32,
    )
    # a row that is not finite is told by `sample`; here it must only not break the others
    logits_NV = logits_NV.nan_to_num(nan=0.0, posinf=0.0)
    # the largest logit becomes 0 first: a tiny temperature must not overflow
    logits_NV = (logits_NV - logits_NV.amax(dim=-1, keepdim=True)) / temperature_N[:, None]
    probs_NV = torch.softmax(logits_NV, dim=-1)
    if any(p.min_p > 0 for p in params):
        floor_N = probs_NV.amax(dim=-1) * min_p_N
        probs_NV = probs_NV.masked_fill(probs_NV < floor_N[:, None], 0.0)
    tokens_N = _invert(probs_NV, uniform_N)
    size = logits_NV.shape[1]
    truncated = [r for r, p in enumerate(params) if p.top_p < 1.0 or 0 < p.top_k < size]
    if logits_NV.device.type == "cpu":
        for row in truncated:
            tokens_N[row] = _draw_truncated(probs_NV[row], params[row], uniform_N[row])
    elif truncated:
        (index_M,) = to_device(logits_NV.device, truncated)
        of_rows = [params[row] for row in truncated]
        drawn_M = _draw_truncated_rows(probs_NV[index_M], of_rows, uniform_N[index_M])
        tokens_N = tokens_N.index_copy(0, index_M, drawn_M)
    return tokens_N


def _invert(probs_NV: torch.Tensor, uniform_N: torch.Tensor) -> torch.Tensor:
    """The token whose stretch of the cumulated probabilities holds the uniform number."""
    cumulated_NV = _cumulated(probs_NV)
    at_N = uniform_N * cumulated_NV[:, -1]
    # a rounded-up product may equal the sum: the last token of any probability is the last answer
    last_N = (probs_NV > 0).long().cumsum(dim=-1).argmax(dim=-1)
    found_N = torch.searchsorted(cumulated_NV, at_N[:, None], right=True)[:, 0]
    return torch.minimum(found_N, last_N)


def _cumulated(probs_NV: torch.Tensor) -> torch.Tensor:
    """On CUDA a tensor of one row goes through another algorithm, whose bits differ from those of
    several rows, and from one time to the next."""
    if len(probs_NV) > 1 or probs_NV.device.type == "cpu":
        return probs_NV.cumsum(dim=-1)
    return probs_NV.repeat(2, 1).cumsum(dim=-1)[:1]


def _draw_truncated_rows(
    probs_MV: torch.Tensor, params: Sequence[Sampling], uniform_M: torch.Tensor
) -> torch.Tensor:
    """As `_draw_truncated`, of all rows at once, with sizes that do not depend on what they hold:
    nothing has to be known on the host."""
    size = probs_MV.shape[-1]
    top_k_M, top_p_M = to_device(
        probs_MV.device,
        [p.top_k or size for p in params],
        [p.top_p for p in params],
        dtype=torch.float32,
    )
    sorted_MV, order_MV = probs_MV.sort(dim=-1, descending=True, stable=True)
    places_V = torch.arange(size, device=probs_MV.device)
    sorted_MV = sorted_MV * (places_V < top_k_M[:, None])
    before_MV = _cumulated(sorted_MV) - sorted_MV
    kept_MV = before_MV < top_p_M[:, None] * sorted_MV.sum(dim=-1, keepdim=True)
    kept_MV = kept_MV | (places_V == 0)
    found_M = _invert(sorted_MV * kept_MV, uniform_M)
    return order_MV.gather(1, found_M[:, None])[:, 0]


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
