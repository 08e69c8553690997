"""The choice of a batch: whoever is first is in it, and nobody is padded for nothing."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.encoder.batch import pick
from llmos.drivers.encoder.limits import LIMITS
from llmos.weights import itemscratch

SMALL = msgspec.structs.replace(LIMITS, batch_rows=8)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=64), st.integers(512, 4096))
def test_a_batch_holds_the_first_row_within_every_bound(lengths: list[int], most: int) -> None:
    chosen = pick(lengths, msgspec.structs.replace(SMALL, batch_tokens=most))
    picked = [lengths[i] for i in chosen]
    assert 0 in chosen
    assert len(set(chosen)) == len(chosen) <= SMALL.batch_rows
    assert picked == sorted(picked)
    assert max(picked) * len(picked) <= max(most, lengths[0])
    assert max(picked) <= max(SMALL.free_tokens, min(picked) * SMALL.most_padding)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=64))
def test_nobody_who_fits_is_left_out(lengths: list[int]) -> None:
    """No row could join on either side."""
    chosen = pick(lengths, SMALL)
    picked = sorted(lengths[i] for i in chosen)
    left = [n for i, n in enumerate(lengths) if i not in chosen]
    if len(picked) == SMALL.batch_rows:
        return
    for other in left:
        longest, shortest = max(picked[-1], other), min(picked[0], other)
        too_large = longest * (len(picked) + 1) > 4096
        too_uneven = longest > max(SMALL.free_tokens, shortest * SMALL.most_padding)
        assert too_large or too_uneven


def test_equal_rows_run_in_their_order() -> None:
    assert pick([5] * 20, SMALL) == list(range(8))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("batch_tokens", "BATCH_TOKENS"), ("head_bytes", "HEAD_BYTES")],
)
def test_what_is_reserved_is_for_such_batches(ours: str, theirs: str) -> None:
    assert getattr(LIMITS, ours) == getattr(itemscratch, theirs)
