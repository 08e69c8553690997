"""A byte range is inside the file, or it is none."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from llmos.api.ranges import Unsatisfiable, range_of

ETAG = b'"x"'


@given(st.integers(0, 100), st.none() | st.integers(0, 120), st.none() | st.integers(0, 120))
def test_a_range_is_what_slicing_says(size: int, first: int | None, last: int | None) -> None:
    header = b"bytes=%s-%s" % (_digits(first), _digits(last))
    data = bytes(range(size))
    if first is None and last is not None:
        wanted = data[-last:] if last else b""
    else:
        wanted = data[first or 0 : None if last is None else last + 1]
    try:
        found = range_of({b"range": header}, ETAG, size)
    except Unsatisfiable:
        assert wanted == b""
        return
    if found is None:
        assert first is None or last is not None
        assert first is None or last < first  # type: ignore[operator]
        return
    assert 0 <= found.start < found.end <= size
    assert data[found.start : found.end] == wanted


def _digits(number: int | None) -> bytes:
    return b"" if number is None else b"%d" % number


@given(st.binary(max_size=40))
def test_no_header_is_a_fault(header: bytes) -> None:
    with contextlib.suppress(Unsatisfiable):
        assert range_of({b"range": header}, ETAG, 0) is None
