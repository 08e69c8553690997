"""Short answers against those that are right: exact match and F1.

English and its like as SQuAD 1.1/2.0 does (Rajpurkar et al., 2016, 2018: bags of words); Chinese as
CMRC 2018 does (Cui et al., 2019: the longest piece in common, by characters). Of several right
answers the best counts. None that is right is the empty one: there is no answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from llmos.errors import InvalidRequest
from llmos.programs.metrics.score import Sums, mean_of
from llmos.programs.metrics.words import (
    cmrc_normal,
    cmrc_tokens,
    has_no_words,
    squad_normal,
)


class Match(NamedTuple):
    """0 to 1, both."""

    exact: float
    f1: float


def match(said: str, right: Sequence[str]) -> Match:
    """By the rules of the script that the right answers are in."""
    rules = _cmrc if any(map(has_no_words, right)) else _squad
    found = [rules(said, one) for one in right or [""]]
    return Match(max(one.exact for one in found), max(one.f1 for one in found))


def _squad(said: str, right: str) -> Match:
    a, b = squad_normal(said), squad_normal(right)
    shared = sum((Counter(a.split()) & Counter(b.split())).values())
    return Match(float(a == b), _f1(shared, a.split(), b.split()))


def _cmrc(said: str, right: str) -> Match:
    exact = float(cmrc_normal(said) == cmrc_normal(right))
    a, b = cmrc_tokens(said), cmrc_tokens(right)
    return Match(exact, _f1(_longest_shared(a, b), a, b))


def _f1(shared: int, a: Sequence[str], b: Sequence[str]) -> float:
    if not a or not b:
        return float(not a and not b)
    return 2 * shared / (len(a) + len(b))


def _longest_shared(a: Sequence[str], b: Sequence[str]) -> int:
    """Of tokens in one piece."""
    best, row = 0, [0] * (len(b) + 1)
    for x in a:
        before = 0
        for number, y in enumerate(b, 1):
            before, row[number] = row[number], before + 1 if x == y else 0
            best = max(best, row[number])
    return best


def answer_scores(matches: Sequence[Match]) -> list[Sums]:
    """Exact match and F1, 0 to 1. Raises InvalidRequest for no answers."""
    if not matches:
        raise InvalidRequest("there are no questions to score", param="data")
    parts: list[tuple[str, Callable[[Match], float]]] = [
        ("f1", lambda one: one.f1),
        ("exact_match", lambda one: one.exact),
    ]
    return [mean_of(name, [of(one) for one in matches]) for name, of in parts]
