"""One byte range of a request (RFC 9110, section 14), and the validator that goes with it."""

from __future__ import annotations

import re
from typing import NamedTuple

_ONE = re.compile(rb"bytes=\s*(\d{0,18})-(\d{0,18})\s*")


class ByteRange(NamedTuple):
    """Bytes `start` to `end` (exclusive)."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """No byte of the thing is in the range."""


def range_of(headers: dict[bytes, bytes], etag: bytes, size_bytes: int) -> ByteRange | None:
    """What is asked for; None for all of it.

    Several ranges, other units and what cannot be read are ignored, as the standard allows.
    Raises Unsatisfiable.
    """
    match = _ONE.fullmatch(headers.get(b"range", b""))
    if match is None or headers.get(b"if-range", etag) != etag:
        return None
    first, last = match[1], match[2]
    if not first and not last:
        return None
    if not first:  # the last so many
        if int(last) == 0 or size_bytes == 0:
            raise Unsatisfiable
        return ByteRange(max(0, size_bytes - int(last)), size_bytes)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size_bytes:
        raise Unsatisfiable
    return ByteRange(start, min(size_bytes, int(last) + 1) if last else size_bytes)
