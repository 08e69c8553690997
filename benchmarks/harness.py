"""What every benchmark shares: rows, medians with bootstrap intervals, the result file, a plot.

A result is `benchmarks/results/NAME.json`: `{name, date, machine, commit, command, rows}`, and
`notes` where there are any (who was absent, and why). A row
with a peer carries `ratio` = ours / peer of the paired runs and its 95 % interval in `low`, `high`;
a row without one carries the interval of its own value there.
"""

from __future__ import annotations

import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
NUM_RESAMPLES = 2000
COVERAGE = 0.95


def machine() -> str:
    """Processor, cores, memory, system, Python, and how busy it is already, in one line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if "model name" in x
        ]
        model = names[0] if names else model
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} x {model}, {gib:.0f} GiB, {platform.system()} {platform.release().split('-')[0]},"
        f" Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} before"
    )


def commit() -> str:
    """The commit measured, with `+` when the sources differ from it."""
    changed = _git("status", "--porcelain", "--", "src", "benchmarks/*.py")
    return (_git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def command(name: str) -> str:
    """How the result is made again."""
    arguments = " ".join(sys.argv[1:])
    return f"make bench-{name}" + (f' ARGS="{arguments}"' if arguments else "")


@dataclass(frozen=True)
class Row:
    """One figure. `peer_value`, `ratio` are None without a peer."""

    figure: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass
class Result:
    """The rows of one benchmark and where they come from."""

    name: str
    command: str
    rows: list[Row] = field(default_factory=list)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    machine: str = field(default_factory=machine)
    commit: str = field(default_factory=commit)
    notes: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Keep a row and print it at once."""
        self.rows.append(row)
        print(describe(row), flush=True)

    def write(
        self, folder: Path = RESULTS, draw: Callable[[Result, Path], None] | None = None
    ) -> Path:
        """Write NAME.json and NAME.svg (`plot`, or what `draw` makes of it); the JSON's path."""
        folder.mkdir(parents=True, exist_ok=True)
        body: dict[str, object] = {
            "name": self.name,
            "date": self.date,
            "machine": self.machine,
            "commit": self.commit,
            "command": self.command,
            "rows": [asdict(row) for row in self.rows],
        }
        if self.notes:
            body["notes"] = self.notes
        path = folder / f"{self.name}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n")
        (draw or plot)(self, folder / f"{self.name}.svg")
        return path


def single(figure: str, unit: str, values: Sequence[float]) -> Row:
    """The median of repetitions, with the bootstrap interval of that median."""
    low, high = interval(values, statistics.median)
    return Row(figure, round4(statistics.median(values)), unit, low=round4(low), high=round4(high))


def paired(
    figure: str, unit: str, values: Sequence[float], peer: str, peer_values: Sequence[float]
) -> Row:
    """Medians of both sides, and the median of the ratios of runs made side by side."""
    if len(values) != len(peer_values):
        raise ValueError(f"{figure}: {len(values)} runs of ours, {len(peer_values)} of the peer")
    ratios = [ours / theirs for ours, theirs in zip(values, peer_values, strict=True)]
    low, high = interval(ratios, statistics.median)
    return Row(
        figure,
        round4(statistics.median(values)),
        unit,
        peer,
        round4(statistics.median(peer_values)),
        round4(statistics.median(ratios)),
        round4(low),
        round4(high),
    )


def interval(
    values: Sequence[float], statistic: Callable[[Sequence[float]], float]
) -> tuple[float, float]:
    """A percentile bootstrap interval (Efron 1979) of COVERAGE, with a fixed seed."""
    draw = random.Random(20261122)
    resampled = sorted(statistic(draw.choices(values, k=len(values))) for _ in range(NUM_RESAMPLES))
    tail = (1 - COVERAGE) / 2
    return resampled[int(tail * NUM_RESAMPLES)], resampled[int((1 - tail) * NUM_RESAMPLES) - 1]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value with at least `share` (0..1) of the values at or below it."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))]


def round4(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def describe(row: Row) -> str:
    """A row as one line of text."""
    text = f"{row.figure:<48} {row.value:>10g} {row.unit:<9}"
    if row.peer is not None:
        text += f" {row.peer}: {row.peer_value:g}"
        text += f", ratio {row.ratio:g}" if row.ratio is not None else ""
    if row.low is not None:
        text += f" [{row.low:g}, {row.high:g}]"
    return text


def plot(result: Result, path: Path) -> None:
    """Bars of every row on a scale of its own, ours beside the peer."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = result.name  # the same rows give the same bytes
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    count = max(1, len(result.rows))
    figure, axes = pyplot.subplots(count, 1, figsize=(8, 0.75 * count + 0.8), squeeze=False)
    for axis, row in zip(axes[:, 0], result.rows, strict=False):
        bars = [(row.peer, row.peer_value, "#9aa5b1")] if row.peer_value is not None else []
        bars.append(("ours", row.value, "#2563eb"))
        for at, (label, value, colour) in enumerate(bars):
            axis.barh(at, value or 0.0, color=colour)
            axis.text(value or 0.0, at, f" {label} {value:g}", va="center", fontsize=7)
        axis.set_yticks([])
        axis.margins(x=0.3)
        axis.set_title(f"{row.figure} ({row.unit})", fontsize=8, loc="left", pad=2)
        axis.tick_params(labelsize=6)
    figure.suptitle(f"{result.name}, {result.date[:10]}, {result.commit}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
