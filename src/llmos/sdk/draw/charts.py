"""Drawings as SVG and HTML: lines over time, stacked bars. Words of others are escaped here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmos.sdk.draw.words import escaped

Point = tuple[float, float]
NUM_COLORS = 6
WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 10, 24
LEAST_SPAN, MOST = 1e-300, 1e300
"""What lies nearer or farther than these is drawn as if it lay there: their parts are numbers."""
LEAST_SHARE = 1e-12
"""Of its size: what changes by less is drawn as a level line, for it would be rounding."""


@dataclass(frozen=True, slots=True)
class Line:
    """A named line; `points` are (x, y) in the order of x."""

    name: str
    points: Sequence[Point]


def nice_step(span: float, num: int = 4) -> float:
    """A round number that divides `span` in about `num` parts."""
    if span < LEAST_SPAN or not math.isfinite(span):
        return 1.0
    rough = span / num
    power = 10 ** math.floor(math.log10(rough))
    return float(next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999))


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where values lie in the drawing: (x0, y0) at the lower left, (x1, y1) at the upper right."""

    x0: float
    x1: float
    y0: float
    y1: float
    step: float

    def at(self, point: Point) -> Point:
        """The place of a point, in the drawing's units."""
        x = LEFT + (point[0] - self.x0) / ((self.x1 - self.x0) or 1) * (WIDTH - LEFT - RIGHT)
        share = (point[1] - self.y0) / (self.y1 - self.y0)
        return x, HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _near(point: Point) -> Point:
    """The point, or where it leaves what can be drawn."""
    x, y = (max(-MOST, min(MOST, value)) for value in point)
    return x, y


def _frame(points: Sequence[Point], from_zero: bool) -> _Frame:
    """Around all points, with round numbers on the axis of y."""
    least, most = min(p[1] for p in points), max(p[1] for p in points)
    if from_zero:
        least, most = min(0.0, least), max(0.0, most)
    size, span = max(abs(least), abs(most)), most - least
    step = nice_step(span if span > LEAST_SHARE * size else size)
    low, high = math.floor(least / step), math.ceil(most / step)
    x0, x1 = min(p[0] for p in points), max(p[0] for p in points)
    return _Frame(x0, x1, low * step, max(high, low + 1) * step, step)


def line_chart(
    lines: Sequence[Line],
    title: str,
    *,
    x_text: Callable[[float], str] = lambda x: f"{x:g}",
    y_text: Callable[[float], str] = lambda y: f"{y:g}",
    from_zero: bool = True,
    filled: bool = False,
) -> str:
    """An SVG with axes. Points that are no numbers are left out."""
    kept = [[_near(p) for p in line.points if all(map(math.isfinite, p))] for line in lines]
    points = [point for one in kept for point in one]
    parts: list[str] = []
    if points:
        frame = _frame(points, from_zero)
        parts += [*_y_axis(frame, y_text), *_x_axis(frame, x_text)]
        for place, one in enumerate(kept):
            parts += _path([frame.at(p) for p in one], place, filled)
    label, box = escaped(title), f"0 0 {WIDTH} {HEIGHT}"
    drawn = "".join(parts)
    return f'<svg class="chart" viewBox="{box}" role="img" aria-label="{label}">{drawn}</svg>'


def _y_axis(frame: _Frame, text: Callable[[float], str]) -> list[str]:
    parts = []
    for number in range(round((frame.y1 - frame.y0) / frame.step) + 1):
        value = frame.y0 + number * frame.step
        y = frame.at((frame.x0, value))[1]
        parts.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        shown = escaped(text(value))
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>')
    return parts


def _x_axis(frame: _Frame, text: Callable[[float], str]) -> list[str]:
    ends = [(LEFT, "start", frame.x0), (WIDTH - RIGHT, "end", frame.x1)]
    return [
        f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="{anchor}">{escaped(text(value))}</text>'
        for x, anchor, value in ends[: 2 if frame.x1 > frame.x0 else 1]
    ]


def _path(points: list[Point], place: int, filled: bool) -> list[str]:
    """One line. Its area, where it is filled, reaches down to the axis."""
    if not points:
        return []
    color, floor_y = place % NUM_COLORS + 1, HEIGHT - BOTTOM
    drawn = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    parts = []
    if filled:
        area = f"{drawn}L{points[-1][0]:.1f} {floor_y:.1f}L{points[0][0]:.1f} {floor_y:.1f}Z"
        parts.append(f'<path class="area c{color}" d="{area}"/>')
    if len(points) == 1:
        x, y = points[0]
        parts.append(f'<circle class="dot c{color}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    else:
        parts.append(f'<path class="line c{color}" d="{drawn}"/>')
    return parts


def legend(names: Sequence[str]) -> str:
    """The colours of a chart's lines, in their order."""
    items = "".join(
        f'<li><i class="c{place % NUM_COLORS + 1}"></i>{escaped(name)}</li>'
        for place, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a stacked bar. `look` is a class: a colour, or `free`."""

    name: str
    amount: float
    text: str
    look: str


def stacked_bar(parts: Sequence[Part], whole: float, title: str) -> str:
    """Parts of a whole in one bar; what is too small to see is drawn at a least width."""
    drawn = []
    for part in parts:
        share = part.amount / whole * 100 if whole > 0 else 0.0
        if share > 0:
            tip = escaped(f"{part.name}: {part.text}")
            drawn.append(f'<i class="{part.look}" style="width:{share:.3f}%" title="{tip}"></i>')
    label = escaped(title)
    return f'<div class="stack" role="img" aria-label="{label}">{"".join(drawn)}</div>'


def part_list(parts: Sequence[Part]) -> str:
    """The same parts as words, beside their colours."""
    items = "".join(
        f'<li><i class="{part.look}"></i><span>{escaped(part.name)}</span>'
        f"<em>{escaped(part.text)}</em></li>"
        for part in parts
    )
    return f'<ul class="parts">{items}</ul>'


def bars(counts: Sequence[tuple[str, float]], title: str, most: int = 12) -> str:
    """Horizontal bars, one for each name, with its number; those after `most` are left out."""
    highest = max([*(number for _, number in counts), 0]) or 1
    rows = "".join(
        f'<div class="label"><span title="{escaped(name)}">{escaped(name)}</span>'
        f'<i><b style="width:{100 * max(0.0, number) / highest:.1f}%"></b></i>'
        f"<em>{number:g}</em></div>"
        for name, number in counts[:most]
    )
    return f'<h3>{escaped(title)}</h3><div class="labels">{rows}</div>'
