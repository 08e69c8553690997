"""Bar charts as inline SVG, by ourselves: no script, no font, no library, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH = 720
ROW_HEIGHT = 30
NAME_WIDTH = 170
VALUE_WIDTH = 130
MAX_NAME_CHARS = 22
COLUMN_HEIGHT = 160
AXIS_HEIGHT = 46


class Bar(NamedTuple):
    """One bar: what it is of, how much, and how that is written."""

    name: str
    value: float
    text: str


def rows_chart(title: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars, for names."""
    height = ROW_HEIGHT * len(bars) + 8
    room = WIDTH - NAME_WIDTH - VALUE_WIDTH
    most = max((bar.value for bar in bars), default=0) or 1
    parts = [head(title, height)]
    for number, bar in enumerate(bars):
        y = 4 + number * ROW_HEIGHT
        width = max(1.5, room * bar.value / most)
        middle = y + ROW_HEIGHT / 2 + 4
        parts.append(
            f'<text class="name" x="{NAME_WIDTH - 10}" y="{middle:g}" text-anchor="end">'
            f"{escape(short(bar.name))}<title>{escape(bar.name)}</title></text>"
            f'<rect class="bar" fill="#2f6feb" x="{NAME_WIDTH}" y="{y + 5:g}" width="{width:.1f}" '
            f'height="{ROW_HEIGHT - 10}" rx="3"/>'
            f'<text class="value" x="{NAME_WIDTH + width + 8:.1f}" y="{middle:g}">'
            f"{escape(bar.text)}</text>"
        )
    return "".join([*parts, "</svg>"])


def columns_chart(title: str, bars: Sequence[Bar], axis: str) -> str:
    """Columns side by side, for a distribution; names of some of them stand below."""
    height = COLUMN_HEIGHT + AXIS_HEIGHT
    most = max((bar.value for bar in bars), default=0) or 1
    step = (WIDTH - 20) / max(1, len(bars))
    every = max(1, -(-len(bars) // 10))
    parts = [head(title, height)]
    for number, bar in enumerate(bars):
        x = 10 + number * step
        tall = (COLUMN_HEIGHT - 14) * bar.value / most
        width = max(1.0, min(step - 2, 60))
        parts.append(
            f'<rect class="bar" fill="#2f6feb" x="{x + (step - width) / 2:.1f}" '
            f'y="{COLUMN_HEIGHT - tall:.1f}" '
            f'width="{width:.1f}" height="{tall:.1f}" rx="2">'
            f"<title>{escape(f'{axis} {bar.name}: {bar.text}')}</title></rect>"
        )
        if number % every == 0:
            parts.append(
                f'<text class="name" x="{x + step / 2:.1f}" y="{COLUMN_HEIGHT + 18}" '
                f'text-anchor="middle">{escape(bar.name)}</text>'
            )
    parts.append(
        f'<line class="axis" stroke="#d8dee4" x1="10" x2="{WIDTH - 10}" '
        f'y1="{COLUMN_HEIGHT}" y2="{COLUMN_HEIGHT}"/>'
        f'<text class="name" x="{WIDTH / 2:g}" y="{COLUMN_HEIGHT + 38}" text-anchor="middle">'
        f"{escape(axis)}</text>"
    )
    return "".join([*parts, "</svg>"])


def head(title: str, height: float) -> str:
    """The beginning of a picture; `</svg>` ends it."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}" '
        'xmlns="http://www.w3.org/2000/svg">'
    )


def short(name: str) -> str:
    """A name as there is room for."""
    return name if len(name) <= MAX_NAME_CHARS else name[: MAX_NAME_CHARS - 1] + "…"
