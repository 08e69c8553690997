"""Text for a terminal: nothing a model or server sent may act on it; numbers a person reads."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Sequence

_HOSTILE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but newline and tab
    "\u202a-\u202e\u2066-\u2069"  # bidirectional overrides: text that shows in another order
    "\ud800-\udfff]"  # lone surrogates cannot be written at all
)
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def visible(text: str) -> str:
    r"""The text with control characters shown (`\x1b`), newline and tab kept."""
    return _HOSTILE.sub(_escape, text)


def one_line(text: str) -> str:
    r"""As `visible`, with newlines and tabs shown as well: for cells and messages."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def size(num_bytes: float | None) -> str:
    """Bytes in decimal units: `1.2 MB`."""
    if num_bytes is None:
        return "-"
    rank = 0
    while num_bytes >= 999.5 and rank < len(_SIZES) - 1:
        num_bytes /= 1000
        rank += 1
    number = f"{num_bytes:.0f}" if rank == 0 or num_bytes >= 99.95 else f"{num_bytes:.1f}"
    return f"{number} {_SIZES[rank]}"


def count(number: int) -> str:
    """A number of parameters or tokens: `260 k`, `1.2 G`."""
    if number < 1000:
        return str(number)
    return size(number).replace("kB", "k").removesuffix("B")


def age(then_ns: int | None, now_ns: int | None = None) -> str:
    """How long ago, in its largest unit: `3 min`."""
    if then_ns is None:
        return "-"
    seconds = max(0, ((time.time_ns() if now_ns is None else now_ns) - then_ns) // 1_000_000_000)
    for length, name in _AGES:
        if seconds >= length:
            return f"{seconds // length} {name}"
    return "0 s"


def seconds(duration_s: float | None) -> str:
    """A duration: `0.4 s`, `37 s`, `12 min`."""
    if duration_s is None:
        return "-"
    if duration_s < 9.95:
        return f"{duration_s:.1f} s"
    return age(0, int(duration_s * 1_000_000_000))


def fit(text: str, width: int) -> str:
    """The text in exactly `width` columns of a terminal, cut with an ellipsis or padded."""
    text = one_line(text)
    spare = width - _width(text)
    if spare >= 0:
        return text + " " * spare
    while text and _width(text) > width - 1:
        text = text[:-1]
    return fit(text + "…", width) if width > 0 else ""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned by display width (Chinese and emoji are two wide). Nothing is cut off."""
    lines = [list(headers), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(headers))]
    return "\n".join(
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def narrowed(
    headers: Sequence[str], rows: Sequence[Sequence[str]], width: int, elastic: Sequence[int]
) -> list[list[str]]:
    """The rows with their `elastic` columns cut, in that order, until a table of them fits `width`.

    No column is cut below its header, so a very narrow screen still wraps.
    """
    cells = [[one_line(cell) for cell in row] for row in rows]
    wants = [max(_width(line[i]) for line in (headers, *cells)) for i in range(len(headers))]
    over = sum(wants) + 2 * (len(wants) - 1) - width
    for column in elastic:
        room = max(_width(headers[column]), wants[column] - max(0, over))
        over -= wants[column] - room
        for row in cells:
            if _width(row[column]) > room:
                row[column] = fit(row[column], room).rstrip()
    return cells


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )
