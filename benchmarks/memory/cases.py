"""Requests to be suspended: what they ask, and after how many tokens they leave. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import models

MAX_SUSPENSIONS = 4
RESUME_S = 120.0
WIDTHS = (17, 16, 16, 9, 17, 16, 4, 16)
"""Requests at once of successive waves: a row for each, fewer, or one more than there are rows."""


@dataclass(frozen=True)
class Subject:
    """A model under test, the sizes of what is asked of it, and its part of the cases."""

    name: str
    vocab_size: int
    longest_prompt: int
    num_tokens: int
    share: float = 0.5


@dataclass(frozen=True)
class Case:
    """One request. It leaves when it has so many tokens as each of `points` says, ascending."""

    body: dict[str, Any]
    points: tuple[int, ...]
    is_greedy: bool


def draw_case(subject: Subject, seed: int) -> Case:
    """Every other one greedy, the others drawn from a seed of their own."""
    draw = random.Random(seed)
    length, is_greedy = draw.randint(4, subject.longest_prompt), seed % 2 == 0
    body = {
        "model": subject.name,
        "prompt": models.tokens(length, seed, subject.vocab_size),
        "max_tokens": subject.num_tokens,
        "ignore_eos": True,
        "stream": True,
        "return_token_ids": True,
        "llmos": {"resume_s": RESUME_S, "deterministic": True},
    }
    body |= {"temperature": 0} if is_greedy else {"temperature": 1.0, "seed": seed, "top_p": 0.95}
    # the last quarter is kept free, so that none has ended before it is to leave
    possible = range(1, 3 * subject.num_tokens // 4)
    points = sorted(draw.sample(possible, draw.randint(1, MAX_SUSPENSIONS)))
    return Case(body, tuple(points), is_greedy)


def draw_waves(subject: Subject, num_cases: int, seed: int) -> list[list[Case]]:
    """At least so many cases, in waves of WIDTHS."""
    waves: list[list[Case]] = []
    while (done := sum(map(len, waves))) < num_cases:
        width = WIDTHS[(seed + len(waves)) % len(WIDTHS)]
        first = 1_000_000 * seed + done
        waves.append([draw_case(subject, first + index) for index in range(width)])
    return waves


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """Where two answers part; None: they are equal."""
    if list(ours) == list(theirs):
        return None
    pairs = zip(ours, theirs, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
