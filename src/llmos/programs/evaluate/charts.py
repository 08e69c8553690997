"""A confusion of classes and curves as inline SVG, beside the bars of `task.svg`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from llmos.programs.task.svg import WIDTH, head, short

MAX_CLASSES = 24
LEFT, TOP, SIDE = 150, 24, 340
COLORS = ("#2f6feb", "#b35900", "#1a7f37", "#8250df", "#b3261e", "#0a7ea4", "#6e7781")
DASHES = ("", "6 3", "2 3")


def confusion_chart(labels: Sequence[str], rows: Sequence[Sequence[int]]) -> str:
    """Rows are what examples are, columns what was said; the shade is the share of its row."""
    size = max(22.0, min(60.0, (WIDTH - LEFT - 20) / len(labels)))
    height = TOP + size * len(labels) + 120
    parts = [head("Confusion", height)]
    for i, (label, row) in enumerate(zip(labels, rows, strict=True)):
        y, total = TOP + i * size, sum(row) or 1
        parts.append(
            f'<text class="name" x="{LEFT - 8}" y="{y + size / 2 + 4:g}" text-anchor="end">'
            f"{escape(short(label))}<title>{escape(label)}</title></text>"
        )
        for j, count in enumerate(row):
            x, share = LEFT + j * size, count / total
            told = escape(f"{label} said to be {labels[j]}: {count} ({share:.1%})")
            color = "#2f6feb" if i == j else "#b3261e"
            parts.append(
                f'<rect x="{x:g}" y="{y:g}" width="{size - 1:g}" height="{size - 1:g}" '
                f'fill="{color}" fill-opacity="{max(share, 0.03):.3f}"><title>{told}</title></rect>'
            )
            if count and size >= 28:
                parts.append(
                    f'<text x="{x + size / 2:g}" y="{y + size / 2 + 4:g}" text-anchor="middle">'
                    f"{count}</text>"
                )
    base = TOP + len(labels) * size + 10
    for j, label in enumerate(labels):
        x = LEFT + j * size + size / 2
        parts.append(
            f'<text class="name" transform="translate({x:g},{base:g}) rotate(40)">'
            f"{escape(short(label))}</text>"
        )
    return "".join([*parts, "</svg>"])


def curve_chart(title: str, axes: tuple[str, str], curves: Sequence[dict[str, Any]]) -> str:
    """Lines in the unit square, each with the name of what it is of."""
    parts = [head(title, SIDE + 80)]
    left, bottom = 60, SIDE + 20
    parts.append(
        f'<rect x="{left}" y="20" width="{SIDE}" height="{SIDE}" fill="none" class="axis" '
        'stroke="#d8dee4"/>'
    )
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = left + share * SIDE, bottom - share * SIDE
        parts.append(
            f'<text class="name" x="{x:g}" y="{bottom + 18}" text-anchor="middle">{share:g}</text>'
            f'<text class="name" x="{left - 8}" y="{y + 4:g}" text-anchor="end">{share:g}</text>'
        )
    for number, curve in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        dash = DASHES[number // len(COLORS) % len(DASHES)]
        points = " ".join(
            f"{left + point[0] * SIDE:.1f},{bottom - point[1] * SIDE:.1f}"
            for point in curve["points"]
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/>'
        )
        if curve["label"]:
            y = 34 + number * 20
            parts.append(
                f'<line x1="{left + SIDE + 20}" x2="{left + SIDE + 44}" y1="{y}" y2="{y}" '
                f'stroke="{color}" stroke-width="2" stroke-dasharray="{dash}"/>'
                f'<text x="{left + SIDE + 52}" y="{y + 4}">{escape(short(curve["label"]))}</text>'
            )
    parts.append(
        f'<text class="name" x="{left + SIDE / 2:g}" y="{bottom + 40}" text-anchor="middle">'
        f'{escape(axes[0])}</text><text class="name" transform="translate(16,{20 + SIDE / 2:g}) '
        f'rotate(-90)" text-anchor="middle">{escape(axes[1])}</text>'
    )
    return "".join([*parts, "</svg>"])
