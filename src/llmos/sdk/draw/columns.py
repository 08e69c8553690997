r"""Text in columns of a terminal, by display width: Chinese and emoji are two wide."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_HOSTILE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but newline and tab
    "\u202a-\u202e\u2066-\u2069"  # bidirectional overrides: text that shows in another order
    "\ud800-\udfff]"  # lone surrogates cannot be written at all
)


def visible(text: str) -> str:
    r"""The text with control characters shown (`\x1b`), newline and tab kept."""
    return _HOSTILE.sub(_escape, text)


def one_line(text: str) -> str:
    r"""As `visible`, with newlines and tabs shown as well: for cells and messages."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def width_of(text: str) -> int:
    """How many columns it takes."""
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def fit(text: str, width: int) -> str:
    """The text in exactly `width` columns of a terminal, cut with an ellipsis or padded."""
    text = one_line(text)
    spare = width - width_of(text)
    if spare >= 0:
        return text + " " * spare
    while text and width_of(text) > width - 1:
        text = text[:-1]
    return fit(text + "…", width) if width > 0 else ""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned by display width. Nothing is cut off."""
    lines = [list(headers), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(width_of(line[i]) for line in lines) for i in range(len(headers))]
    return "\n".join(
        "  ".join(
            cell + " " * (width - width_of(cell)) for cell, width in zip(line, widths, strict=True)
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
    wants = [max(width_of(line[i]) for line in (headers, *cells)) for i in range(len(headers))]
    over = sum(wants) + 2 * (len(wants) - 1) - width
    for column in elastic:
        room = max(width_of(headers[column]), wants[column] - max(0, over))
        over -= wants[column] - room
        for row in cells:
            if width_of(row[column]) > room:
                row[column] = fit(row[column], room).rstrip()
    return cells
