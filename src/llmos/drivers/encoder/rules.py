"""What a folder's `generation_config.json` forbids, by Transformers' own processors.

Shapes: B rows, T tokens so far, V vocabulary.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from transformers.generation import logits_process as rules

Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of tokens so far and their scores: what is left of them."""


class Rules:
    """In the order in which Transformers asks."""

    def __init__(self, config: Any, eos: list[int], device: torch.device) -> None:
        self._found: list[Rule | _FromOwn] = _rules(config, eos, str(device))

    def __bool__(self) -> bool:
        return bool(self._found)

    def __call__(
        self, ids_BT: torch.Tensor, scores_BV: torch.Tensor, num_given: int, num_forced: int
    ) -> torch.Tensor:
        """Scores of rows that are equally long, begin with a prompt of `num_given` tokens and are
        not free in the first `num_forced`."""
        for found in self._found:
            rule = found
            if isinstance(rule, _FromOwn):
                rule = rule.beginning(1 + (num_given if rule.of_prompt else num_forced))
            scores_BV = rule(ids_BT, scores_BV)
        return scores_BV


class _FromOwn:
    """A rule that counts from where a row's own tokens begin, `make` of that place. `of_prompt`:
    what is forced without being a prompt counts as the model's own."""

    def __init__(self, make: Callable[[int], Rule], *, of_prompt: bool) -> None:
        self.beginning = functools.cache(make)
        self.of_prompt = of_prompt


def _rules(config: Any, eos: list[int], device: str) -> list[Rule | _FromOwn]:
    found: list[Rule | _FromOwn] = []
    if config.repetition_penalty not in (None, 1.0):
        found.append(rules.RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.no_repeat_ngram_size:
        found.append(rules.NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.min_length and eos and not config.min_new_tokens:  # which takes its place
        found.append(rules.MinLengthLogitsProcessor(config.min_length, eos, device=device))
    if least := eos and config.min_new_tokens:

        def after(begin: int) -> Rule:
            return rules.MinNewTokensLengthLogitsProcessor(begin, least, eos, device=device)

        found.append(_FromOwn(after, of_prompt=True))
    if first := getattr(config, "begin_suppress_tokens", None):

        def at(begin: int) -> Rule:
            return rules.SuppressTokensAtBeginLogitsProcessor(first, begin, device=device)

        found.append(_FromOwn(at, of_prompt=False))
    if config.suppress_tokens:
        found.append(rules.SuppressTokensLogitsProcessor(config.suppress_tokens, device))
    return found
