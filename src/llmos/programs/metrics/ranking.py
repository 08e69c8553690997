"""What was found first: nDCG, MRR, MAP, recall and precision among the first k.

nDCG with linear gains (Järvelin & Kekäläinen, 2002), as scikit-learn's; of a query without anything
relevant nothing is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from llmos.errors import InvalidRequest
from llmos.programs.metrics.score import Sums, mean_of

CUTS = (1, 3, 5, 10, 100)
LEADING = 10
"""Of a ranking, the names that people are shown."""


class Ranked(NamedTuple):
    """Of a ranking what counts: the names that lead it, and the gains by their rank, from 0."""

    leading: list[Any]
    gains: dict[int, float]


def ranked_of(order: Sequence[str], relevant: Mapping[str, float]) -> Ranked:
    """Raises InvalidRequest for a name that is there twice."""
    if len(set(order)) != len(order):
        raise InvalidRequest("a document was found twice", param="data")
    gains = {rank: relevant[name] for rank, name in enumerate(order) if name in relevant}
    return Ranked(list(order[:LEADING]), gains)


def ndcg(gains: Mapping[int, float], every: Sequence[float], k: int) -> float:
    """`gains` by rank, `every` all there are."""
    best = _dcg(enumerate(sorted(every, reverse=True)[:k]))
    return _dcg((rank, gain) for rank, gain in gains.items() if rank < k) / best


def _dcg(gains: Iterable[tuple[int, float]]) -> float:
    return math.fsum(gain / math.log2(rank + 2) for rank, gain in gains)


def ranking_of(found: Ranked, relevant: Mapping[str, float]) -> dict[str, float]:
    """Of one query, with the gain of each relevant document."""
    every = [gain for gain in relevant.values() if gain > 0]
    if not every:
        return dict.fromkeys(_names(), math.nan)
    gains = {rank: gain for rank, gain in found.gains.items() if gain > 0}
    hits = {k: sum(rank < k for rank in gains) for k in CUTS}
    made = {f"ndcg@{k}": ndcg(gains, every, k) for k in CUTS}
    made |= {f"recall@{k}": hits[k] / len(every) for k in CUTS}
    made |= {f"precision@{k}": hits[k] / k for k in CUTS}
    ranks = sorted(gains)
    made["mrr"] = 1 / (ranks[0] + 1) if ranks else 0.0
    precisions = [count / (rank + 1) for count, rank in enumerate(ranks, 1)]
    made["map"] = math.fsum(precisions) / len(every)
    return made


def _names() -> list[str]:
    cut = [f"{name}@{k}" for name in ("ndcg", "recall", "precision") for k in CUTS]
    return [*cut, "mrr", "map"]


def ranking_scores(rankings: Sequence[Mapping[str, float]]) -> list[Sums]:
    """Means over queries. Raises InvalidRequest where no query has anything relevant."""
    if all(math.isnan(one["mrr"]) for one in rankings):
        raise InvalidRequest("no query has a relevant document", param="data")
    return [mean_of(name, [one[name] for one in rankings]) for name in _names()]
