"""Curves of runs as an SVG file, by ourselves: a panel for each measure, a colour for each run."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from llmos.errors import InvalidRequest

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 60, 16, 30, 36
LINE = 18
COLOURS = ("#2f6feb", "#d9480f", "#2b8a3e", "#862e9c", "#0b7285", "#a61e4d", "#5c940d", "#495057")

Curves = Mapping[str, tuple[list[int], list[float]]]


def check_plot(path: Path) -> None:
    """Before anything is asked. Raises InvalidRequest."""
    if path.suffix != ".svg":
        raise InvalidRequest(f"{path} cannot be written: it must end in .svg", param="plot")
    if not path.parent.is_dir():
        raise InvalidRequest(f"{path}: there is no folder {path.parent}", param="plot")


def draw(path: Path, runs: Mapping[str, Curves]) -> None:
    """Raises InvalidRequest for runs that told nothing, or a file that cannot be written."""
    names = list(dict.fromkeys(name for curves in runs.values() for name in curves))
    if not names:
        raise InvalidRequest("these runs told of no loss yet: nothing to draw", param="plot")
    head = LINE * (len(runs) + 1)
    height = head + HEIGHT * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, run in enumerate(runs):
        y, colour = LINE * (number + 1), COLOURS[number % len(COLOURS)]
        parts.append(f'<rect x="{LEFT}" y="{y - 9}" width="12" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 18}" y="{y}">{escape(run)}</text>')
    for number, name in enumerate(names):
        parts.append(_panel(name, runs, head + number * HEIGHT))
    try:
        path.write_text("".join([*parts, "</svg>\n"]), "utf-8")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error}", param="plot") from error


def _panel(name: str, runs: Mapping[str, Curves], y: int) -> str:
    held = {run: curves[name] for run, curves in runs.items() if name in curves}
    steps = [step for curve in held.values() for step in curve[0]]
    values = [value for curve in held.values() for value in curve[1]]
    low, high = min(values), max(values)
    high = high if high > low else low + 1.0
    last = max(*steps, 1)
    bottom, top = y + HEIGHT - BOTTOM, y + TOP

    def place(step: int, value: float) -> str:
        across = LEFT + (WIDTH - LEFT - RIGHT) * step / last
        return f"{across:.1f},{bottom - (bottom - top) * (value - low) / (high - low):.1f}"

    parts = [
        f'<text x="{LEFT}" y="{y + 18}" font-weight="bold">{escape(name)}</text>',
        f'<path d="M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="#adb5bd"/>',
        f'<text x="{LEFT - 6}" y="{top + 4}" text-anchor="end">{high:.3g}</text>',
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{bottom + 16}" text-anchor="end">step {last}</text>',
    ]
    for number, run in enumerate(runs):
        if run not in held:
            continue
        line = " ".join(place(*point) for point in zip(*held[run], strict=True))
        colour = COLOURS[number % len(COLOURS)]
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        )
    return "".join(parts)
