"""What was found first: nDCG, MRR, MAP, recall and precision among the first k.

nDCG with linear gains (Järvelin & Kekäläinen, 2002), as scikit-learn's; of a query without anything
relevant nothing is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from llmos.errors import InvalidRequest
from llmos.programs.metrics.score import Sums, mean_of

CUTS = (1, 3, 5, 10, 100)


def ndcg(gains: Sequence[float], every: Sequence[float], k: int) -> float:
    """`gains` in the order found, `every` all there are."""
    best = _dcg(sorted(every, reverse=True)[:k])
    return _dcg(gains[:k]) / best if best else math.nan


def _dcg(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))


def ranking_of(found: Sequence[str], relevant: Mapping[str, float]) -> dict[str, float]:
    """Of one query: names of documents as they were ranked, and the gain of each relevant one."""
    if len(set(found)) != len(found):
        raise InvalidRequest("a document was found twice", param="data")
    gains = [max(0.0, relevant.get(name, 0.0)) for name in found]
    every = [gain for gain in relevant.values() if gain > 0]
    hits = [gain > 0 for gain in gains]
    if not every:
        return dict.fromkeys(_names(), math.nan)
    made = {f"ndcg@{k}": ndcg(gains, every, k) for k in CUTS}
    made |= {f"recall@{k}": sum(hits[:k]) / len(every) for k in CUTS}
    made |= {f"precision@{k}": sum(hits[:k]) / k for k in CUTS}
    first = next((rank for rank, hit in enumerate(hits, 1) if hit), None)
    made["mrr"] = 1 / first if first else 0.0
    precisions = [sum(hits[:rank]) / rank for rank, hit in enumerate(hits, 1) if hit]
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
