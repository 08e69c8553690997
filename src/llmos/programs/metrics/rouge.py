"""ROUGE-1, -2, -L and -Lsum (Lin, 2004), equal to rouge-score on ASCII without its stemmer.

Where a script has no words, characters are counted; rouge-score drops all that is not ASCII.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from llmos.programs.metrics.words import tokens_of

NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def rouge(said: str, right: Sequence[str]) -> dict[str, float]:
    """F-measures, 0 to 1, each with the reference that is best for it."""
    tables = [_rouge(said, one) for one in right]
    return {name: max(table[name] for table in tables) for name in NAMES}


def _rouge(said: str, right: str) -> dict[str, float]:
    a, b = tokens_of(said), tokens_of(right)
    return {
        "rouge1": _of_grams(a, b, 1),
        "rouge2": _of_grams(a, b, 2),
        "rougeL": _f(longest_common(a, b), len(a), len(b)),
        "rougeLsum": _of_lines(said, right),
    }


def _f(shared: int, num_said: int, num_right: int) -> float:
    """Of precision and recall, by their counts."""
    if not shared:
        return 0.0
    precision, recall = shared / num_said, shared / num_right
    return 2 * precision * recall / (precision + recall)


def _of_grams(a: Sequence[str], b: Sequence[str], size: int) -> float:
    said, right = (
        Counter(tuple(tokens[n : n + size]) for n in range(len(tokens) - size + 1))
        for tokens in (a, b)
    )
    return _f(sum((said & right).values()), sum(said.values()), sum(right.values()))


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of bits at a time (Hyyrö, 2004)."""
    places: dict[str, int] = {}
    for number, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << number
    ones = (1 << len(a)) - 1
    row = ones
    for token in b:
        met = row & places.get(token, 0)
        row = ((row + met) | (row - met)) & ones
    return len(a) - row.bit_count()


def _of_lines(said: str, right: str) -> float:
    """Summary level: of each line of the reference the union of what it shares with all lines."""
    lines, others = (
        [tokens_of(line) for line in text.split("\n") if line] for text in (right, said)
    )
    num_right, num_said = sum(map(len, lines)), sum(map(len, others))
    if not num_right or not num_said:
        return 0.0
    left, left_right = Counter(t for s in others for t in s), Counter(t for s in lines for t in s)
    hits = 0
    for line in lines:
        for place in sorted(set().union(*(_shared_places(line, other) for other in others))):
            token = line[place]
            if left[token] > 0 and left_right[token] > 0:
                hits += 1
                left[token] -= 1
                left_right[token] -= 1
    return _f(hits, num_said, num_right)


def _shared_places(line: Sequence[str], other: Sequence[str]) -> list[int]:
    """Where in `line` the tokens of one longest common subsequence are, as rouge-score walks."""
    table = [[0] * (len(other) + 1) for _ in range(len(line) + 1)]
    for i, x in enumerate(line, 1):
        for j, y in enumerate(other, 1):
            same = table[i - 1][j - 1] + 1
            table[i][j] = same if x == y else max(table[i - 1][j], table[i][j - 1])
    i, j = len(line), len(other)
    places = []
    while i > 0 and j > 0:
        if line[i - 1] == other[j - 1]:
            places.append(i - 1)
            i, j = i - 1, j - 1
        elif table[i][j - 1] > table[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return places
