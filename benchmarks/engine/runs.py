"""What is read off one run: when each token of each stream came. Pure.

`token_s` are seconds from the start of the run (every request is sent then, unless it has a time of
its own).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from benchmarks.harness import percentile

Tokens = Sequence[Sequence[float]]


def decode_rate(token_s: Tokens) -> float:
    """Tokens per second of all streams together while all of them decode.

    From the last stream's first token to the first stream's last one. Raises ValueError when there
    is no such time.
    """
    begin_s = max(times[0] for times in token_s)
    end_s = min(times[-1] for times in token_s)
    count = sum(begin_s < at <= end_s for times in token_s for at in times)
    if end_s <= begin_s or not count:
        raise ValueError("the streams never decode together: more tokens are needed")
    return count / (end_s - begin_s)


def prefill_rate(token_s: Tokens, prompt_tokens: int) -> float:
    """Prompt tokens per second until every stream has its first token."""
    return prompt_tokens * len(token_s) / max(times[0] for times in token_s)


def ttft(token_s: Tokens, share: float = 0.5, due_s: Sequence[float] = ()) -> float:
    """A percentile of seconds to the first token."""
    due = due_s or [0.0] * len(token_s)
    return percentile([t[0] - at for t, at in zip(token_s, due, strict=True)], share)


def inter_token(token_s: Tokens, share: float = 0.99) -> float:
    """A percentile of seconds between one token of a stream and its next."""
    gaps = [b - a for times in token_s for a, b in itertools.pairwise(times)]
    return percentile(gaps, share)


def check(token_s: Tokens, wanted: Sequence[int]) -> None:
    """Raises ValueError unless every stream has exactly the tokens that were asked for."""
    got = [len(times) for times in token_s]
    if got != list(wanted):
        raise ValueError(f"asked for {list(wanted)} tokens, got {got}")
