"""What an answer costs. Pure."""

from __future__ import annotations

from llmos.abi.inference import Usage
from llmos.abi.remote import Price

MILLION = 1_000_000


def cost_of(price: Price | None, usage: Usage) -> float | None:
    """In US dollars; None: nobody said what its tokens cost."""
    if price is None:
        return None
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    of_cached = price.input if price.cached_input is None else price.cached_input
    total = (usage.prompt_tokens - cached) * price.input + cached * of_cached
    return (total + usage.completion_tokens * price.output) / MILLION
