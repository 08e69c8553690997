"""The lines of a JSONL file, one at a time: whatever its size, one line is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MAX_LINE_BYTES = 8 << 20
"""As a body sent over HTTP may be long by default."""

BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """`number` counts from 1, `offset` is where it begins. `raw` is without its end: empty for a
    blank line, None for one of over MAX_LINE_BYTES, which was never read as a whole."""

    number: int
    offset: int
    raw: bytes | None


def read_lines(file: BinaryIO, number: int = 1) -> Iterator[Line]:
    """From where the file stands, its line `number`. A byte order mark at the file's beginning is
    left out; a line may end in CRLF."""
    offset = file.tell()
    while raw := file.readline(MAX_LINE_BYTES + 2):
        at, offset = offset, offset + len(raw)
        whole = raw.endswith(b"\n") or len(raw) <= MAX_LINE_BYTES
        if not raw.endswith(b"\n") and len(raw) > MAX_LINE_BYTES:
            offset += _skip(file)
        text = raw.removeprefix(BOM) if at == 0 else raw
        yield Line(number, at, text.strip(b" \t\r\n") if whole else None)
        number += 1


def _skip(file: BinaryIO) -> int:
    """To the end of an over-long line; how many bytes that were."""
    size = 0
    while raw := file.readline(MAX_LINE_BYTES):
        size += len(raw)
        if raw.endswith(b"\n"):
            break
    return size
