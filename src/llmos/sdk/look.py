"""What was put together to be looked at: a run with its curves, an evaluation, things side by side.

Each has its parts as fields; a notebook draws it, a terminal has a line or two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

from llmos.abi.jobs import JobRecord
from llmos.sdk.draw import scores
from llmos.sdk.draw.cards import card, score_rows
from llmos.sdk.draw.charts import Line, legend, line_chart
from llmos.sdk.draw.columns import one_line, table
from llmos.sdk.draw.curves import RunLog, names_of, thinned
from llmos.sdk.draw.sheet import beside, heading, sheet, text_of
from llmos.sdk.draw.sheet import table as html_table
from llmos.sdk.draw.words import plain

MAX_CHARTS = 6
MAX_SHOWN_SAMPLES = 5
CURVES = {"roc": "ROC", "precision_recall": "Precision and recall", "calibration": "Calibration"}


def figures(y: float) -> str:
    """A value on an axis."""
    return f"{y:.3g}"


def charts_of(log: RunLog) -> str:
    """The curves people look at first as SVG, and the newest samples."""
    drawn = [
        heading(name)
        + line_chart(
            [Line(name, thinned(log.curves[name]))], plain(name), from_zero=False, y_text=figures
        )
        for name in names_of([log])[:MAX_CHARTS]
    ]
    if samples := log.samples[-MAX_SHOWN_SAMPLES:]:
        rows = [
            (str(step), "  ·  ".join(f"{name}: {part}" for name, part in value.items()))
            for step, value in reversed(samples)
        ]
        drawn.append(heading("samples") + html_table(("step", "said"), rows))
    return "".join(drawn)


@dataclass
class Run:
    """A training run: its job, its curves and samples so far."""

    job: JobRecord
    log: RunLog = field(default_factory=RunLog)

    @property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """(step, value) by the metric's name."""
        return self.log.curves

    def _repr_html_(self) -> str:
        return sheet(card(self.job).html(), charts_of(self.log))

    def __repr__(self) -> str:
        told = [
            f"{name} {points[-1][1]:.4g}"
            for name in names_of([self.log])[:4]
            if (points := self.curves[name])
        ]
        return f"<{one_line(plain('  '.join([card(self.job).text(), *told])))}>"


@dataclass
class Evaluation:
    """How good a model's answers were: its job, and the whole report once it is written."""

    job: JobRecord
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def scores(self) -> dict[str, float | None]:
        """The scores by name."""
        rows = scores.dict_of((self.job.outputs or {}).get("scores"))
        return {name: scores.dict_of(row).get("value") for name, row in rows.items()}

    @property
    def labels(self) -> list[str]:
        """The classes, in the order of `confusion`."""
        return list(self.report.get("labels") or [])

    @property
    def confusion(self) -> list[list[int]]:
        """Rows are what examples are, columns what was said."""
        return list(self.report.get("confusion") or [])

    def _repr_html_(self) -> str:
        matrix = scores.matrix(self.report, "Confusion: rows are what it is, columns what was said")
        return sheet(card(self.job).html(), matrix, curve_charts(self.report))

    def __repr__(self) -> str:
        rows = [[text_of(cell) for cell in row] for row in score_rows(self.job)]
        head = f"<{one_line(plain(card(self.job).text()))}>"
        shown = table(("SCORE", "VALUE", "AGAINST", "DIFFERENCE"), rows) if rows else ""
        return f"{head}\n{plain(shown)}".rstrip()


def curve_charts(report: dict[str, Any]) -> str:
    """ROC and whatever other curves a report has, those people know first."""
    curves = scores.dict_of(report.get("curves"))
    names = sorted(curves, key=lambda name: [*CURVES, name].index(name))
    return "".join(unit_chart(CURVES.get(name, name), curves[name]) for name in names)


def unit_chart(title: str, lines: Any) -> str:
    """Curves in the unit square; empty where there are none that can be read."""
    made = []
    for one in lines if isinstance(lines, list) else []:
        points = one.get("points") if isinstance(one, dict) else None
        if not isinstance(points, list):
            continue
        kept = [(float(p[0]), float(p[1])) for p in points if _is_point(p)]
        if kept:
            made.append(Line(plain(str(one.get("label") or "")), thinned(kept)))
    if not made:
        return ""
    names = [line.name for line in made if line.name]
    chart = line_chart(made, plain(title), x_text=figures, y_text=figures)
    return heading(title) + chart + (legend(names) if names else "")


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, list | tuple)
        and len(point) >= 2
        and all(isinstance(x, int | float) and not isinstance(x, bool) for x in point[:2])
    )


class Beside:
    """Results next to one another: `beside(pilot=a, echo=b)`."""

    def __init__(self, **parts: Any) -> None:
        self.parts = parts

    def _repr_html_(self) -> str:
        return sheet(beside((name, _inner(part)) for name, part in self.parts.items()))

    def __repr__(self) -> str:
        return "\n\n".join(f"{plain(name)}:\n{part!r}" for name, part in self.parts.items())


def _inner(part: Any) -> str:
    made = getattr(part, "_repr_html_", None)
    return made() if made is not None else f"<pre>{escape(plain(repr(part)))}</pre>"
