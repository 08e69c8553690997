"""An evaluation as one HTML page that loads nothing: verdict, scores, classes, curves, examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from llmos.programs.evaluate.charts import MAX_CLASSES, confusion_chart, curve_chart
from llmos.programs.task.html import page_head
from llmos.programs.task.tables import as_text

SHOWN = 100
CELL_CHARS = 300
CURVES = {
    "roc": ("ROC", ("share of the others that is taken", "share of it that is found")),
    "precision_recall": ("Precision and recall", ("recall", "precision")),
    "calibration": ("Calibration", ("how sure the model is", "how often it is right")),
}
Write = Callable[[str], object]


def write_html(path: Path, report: Mapping[str, Any], examples: Iterable[dict[str, Any]]) -> None:
    """The report; of the examples those that went wrong first."""
    title = escape(report["title"] or f"{report['kind']} with {report['model']}")
    with path.open("w", encoding="utf-8") as file:
        write = file.write
        write(page_head(title))
        _facts(write, report)
        _gate(write, report.get("gate"))
        write("<h2>Scores</h2>\n")
        _table(write, *_scores(report))
        if report["slices"]:
            write(f"<h2>{escape(report['score'])} by slice</h2>\n")
            _table(write, *_slices(report["slices"]))
        _classes(write, report)
        for name, curves in report["curves"].items():
            heading, axes = CURVES[name]
            if curves:
                write(f"<h2>{heading}</h2>\n{curve_chart(heading, axes, curves)}\n")
        write(f"<h2>Examples</h2>\n<p class='note'>At most {SHOWN}, wrong ones first.</p>\n")
        _examples(write, list(examples))
        write("</body>\n</html>\n")


def _facts(write: Write, report: Mapping[str, Any]) -> None:
    facts = [
        ("Model", report["model"]),
        ("Compared with", report["against"]),
        ("Examples", f"{report['examples']:,}"),
        ("Without an answer", f"{report['rejected']:,}" if report["rejected"] else ""),
        ("Left out, the call failed", f"{report['failed']:,}" if report["failed"] else ""),
        ("Data", report["data"]),
        ("Intervals", f"{report['confidence']:.0%}, bootstrap of {report['resamples']:,}"),
        *(("Note", note) for note in report["notes"]),
    ]
    write("<dl>\n")
    for name, value in facts:
        if value:
            write(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>\n")
    write("</dl>\n")


def _gate(write: Write, gate: Mapping[str, Any] | None) -> None:
    if gate is None:
        return
    write(f"<h2>Gate: {'passed' if gate['passed'] else 'not passed'}</h2>\n<ul>\n")
    for check in gate["checks"]:
        bad = "" if check["passed"] else ' class="bad"'
        write(f"<li{bad}>{escape(check['reason'])}</li>\n")
    write("</ul>\n")


def _table(write: Write, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    write('<div class="wide"><table>\n<tr>')
    write("".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>\n")
    for row in rows:
        write("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n")
    write("</table></div>\n")


def _scores(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    names = ["score", "value", "interval"]
    if report["against"]:
        names += [report["against"], "difference", "interval", "p", "test"]
    rows = []
    for name, row in report["scores"].items():
        cells = [name, shown(row["value"]), between(row)]
        if found := row.get("difference"):
            cells += [shown(row["against"]), shown(found["value"]), between(found)]
            cells += [shown(found["p_value"]), found["test"]]
        rows.append(cells + [""] * (len(names) - len(cells)))
    return names, rows


def shown(value: float | None) -> str:
    """A figure; undefined is a dash."""
    return "–" if value is None else f"{value:.4g}"


def between(row: Mapping[str, Any]) -> str:
    """An interval."""
    if row.get("low") is None or row.get("high") is None:
        return "–"
    return f"{row['low']:.4g} to {row['high']:.4g}"


def _slices(rows: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    made = [
        [row["column"], row["value"], f"{row['examples']:,}", shown(row["score"]), between(row)]
        for row in rows
    ]
    return ["column", "value", "examples", "score", "interval"], made


def _classes(write: Write, report: Mapping[str, Any]) -> None:
    if not report["classes"]:
        return
    write("<h2>By class</h2>\n")
    figures = ("precision", "recall", "f1")
    rows = [
        [row["label"], *(shown(row[f]) for f in figures), str(row["support"]), str(row["said"])]
        for row in report["classes"]
    ]
    _table(write, ["class", *figures, "there", "said"], rows)
    labels = report["labels"]
    if labels and len(labels) <= MAX_CLASSES:
        write("<h2>Confusion</h2>\n<p class='note'>Rows: what it is. Columns: what was said.</p>\n")
        write(confusion_chart(labels, report["confusion"]) + "\n")


def _examples(write: Write, rows: list[dict[str, Any]]) -> None:
    rows.sort(key=lambda row: bool(row.get("right_was_said", False)))
    names = list(dict.fromkeys(name for row in rows[:SHOWN] for name in row))
    cells = ([_cut(as_text(row.get(name))) for name in names] for row in rows[:SHOWN])
    _table(write, names, cells)


def _cut(text: str) -> str:
    return text if len(text) <= CELL_CHARS else text[:CELL_CHARS] + "…"
