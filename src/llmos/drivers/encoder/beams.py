"""The likeliest text, looked for with several beams side by side: the bookkeeping of one text.

Beam search as Transformers has it (Sutskever et al. 2014; its length penalty, its ways to stop
early), so that equal weights write equal texts.

Shapes: K beams, V vocabulary.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

import torch

NEVER = "never"


class Search(NamedTuple):
    """Of a folder's `generation_config.json`. A finished text scores its log-probability over its
    length to the `length_penalty`."""

    length_penalty: float
    early_stopping: bool | str


class Beams:
    """After each step, beam i goes on from where beam `sources[i]` was, with token `newest[i]`. The
    first `num_given` tokens are a prompt: no part of a text's length."""

    def __init__(self, count: int, search: Search, num_given: int = 0) -> None:
        self.count = count
        self._search = search
        self._num_given = num_given
        self._running: list[list[int]] = [[] for _ in range(count)]
        self._sums = [0.0, *[-1e9] * (count - 1)]  # all beams begin alike: only one counts
        self._finished: list[tuple[float, list[int]]] = []
        self.num_made = 0
        self.is_over = False
        self.sources = list(range(count))
        self.newest = [0] * count

    @property
    def best(self) -> list[int]:
        """Tokens of the best text that has ended."""
        return self._finished[0][1]

    def step(self, scores_KV: torch.Tensor, forced: int | None, eos: Set[int], most: int) -> None:
        """One token. `forced`: the only one there may be; `most`: tokens that a text may have."""
        if forced is not None:
            scores_KV = torch.full_like(scores_KV, -float("inf"))
            scores_KV[:, forced] = 0.0
        sums_K1 = torch.tensor(self._sums, device=scores_KV.device)[:, None]
        num_looked = max(2, 1 + len(eos)) * self.count
        flat = (scores_KV + sums_K1).flatten()
        found = flat.topk(min(num_looked, flat.numel()))
        vocab_size = scores_KV.shape[1]
        self.num_made += 1
        going: list[tuple[float, int, int]] = []
        pairs = zip(found.values.tolist(), found.indices.tolist(), strict=True)
        for rank, (total, place) in enumerate(pairs):
            beam, token = divmod(place, vocab_size)
            is_end = token in eos and self.num_made > self._num_given
            if is_end or self.num_made >= most:
                if rank < self.count:
                    self._finish(total, [*self._running[beam], token])
            elif len(going) < self.count:
                going.append((total, beam, token))
        self._go_on(going)
        self.is_over = not going or not self._may_improve(most)

    def _finish(self, total: float, tokens: list[int]) -> None:
        score = total / (self.num_made - self._num_given) ** self._search.length_penalty
        self._finished.append((score, tokens))
        self._finished.sort(key=lambda one: -one[0])
        del self._finished[self.count :]

    def _go_on(self, going: list[tuple[float, int, int]]) -> None:
        if going:
            while len(going) < self.count:  # of a vocabulary that is very small
                going.append((-1e9, going[0][1], going[0][2]))
            self._running = [[*self._running[beam], token] for _, beam, token in going]
            self._sums = [total for total, _, _ in going]
            self.sources = [beam for _, beam, _ in going]
            self.newest = [token for _, _, token in going]

    def _may_improve(self, most: int) -> bool:
        """Whether the best that goes on could still end better than the worst that has ended."""
        if len(self._finished) < self.count or self.num_made <= self._num_given:
            return True
        length_penalty, early_stopping = self._search
        if early_stopping is True:
            return False
        is_patient = early_stopping == NEVER and length_penalty > 0
        length = float((most if is_patient else self.num_made) - self._num_given)
        best: float = self._sums[0] / length**length_penalty
        return best > self._finished[-1][0]
