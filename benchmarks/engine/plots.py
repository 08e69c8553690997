"""Lines of ours and of each peer: figures against width, cost against context length."""

from __future__ import annotations

from pathlib import Path

COLUMNS = 4
COLOURS = {"ours": "#2563eb"}
OTHERS = ("#d97706", "#059669", "#9333ea", "#6b7280", "#be123c")

Series = dict[str, dict[str, list[tuple[float, float]]]]
"""By figure and engine, points (x, value)."""


def draw(series: Series, title: str, path: Path) -> None:
    """A panel per figure, from zero, so that lengths compare."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = path.stem
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    columns = min(COLUMNS, max(1, len(series)))
    lines = -(-max(1, len(series)) // columns)
    size = (3.6 * columns, 2.6 * lines + 0.6)
    figure, axes = pyplot.subplots(lines, columns, figsize=size, squeeze=False)
    for axis in axes.flat[len(series) :]:
        axis.set_visible(False)
    for axis, (name, by_engine) in zip(axes.flat, series.items(), strict=False):
        others = iter(OTHERS * len(by_engine))
        for engine, points in by_engine.items():
            colour = COLOURS.get(engine) or next(others)
            axis.plot(*zip(*points, strict=True), marker="o", ms=3, lw=1.2, c=colour, label=engine)
        axis.set_ylim(bottom=0)
        axis.set_title(name, fontsize=8, loc="left")
        axis.tick_params(labelsize=6)
        axis.legend(fontsize=6, frameon=False)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
