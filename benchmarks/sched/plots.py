"""Lines of a run: distributions and courses, one small plot per figure."""

from __future__ import annotations

from pathlib import Path


def plot_series(series: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Each figure's lines as cumulative shares of their values, on a logarithmic scale."""
    if not series:
        return
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = path.stem
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(series), 1, figsize=(8, 3 * len(series)), squeeze=False)
    for axis, (title, lines) in zip(axes[:, 0], series.items(), strict=True):
        for name, values in lines.items():
            ordered = sorted(values)
            shares = [(index + 1) / len(ordered) for index in range(len(ordered))]
            axis.step(ordered, shares, where="post", label=f"{name} ({len(ordered)})")
        axis.set_xscale("log")
        axis.set_ylim(0, 1.02)
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_ylabel("share of requests", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
