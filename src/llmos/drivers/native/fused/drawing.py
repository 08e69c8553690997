"""How a request's token is drawn, as the engine wants to be told."""

from __future__ import annotations

from llmos.drivers.native.fused.engine import Drawing
from llmos.drivers.sampling.params import Row, uniform


def drawing(sampler: Row, index: int) -> Drawing:
    """Of the token `index` of a request: whoever draws it, draws it with the same number."""
    if sampler.greedy:
        return GREEDY
    how = sampler.sampling
    return Drawing(
        greedy=False,
        uniform=uniform(sampler.seed, index),
        temperature=how.temperature,
        top_p=how.top_p,
        top_k=how.top_k,
        min_p=how.min_p,
    )


GREEDY = Drawing(greedy=True)
