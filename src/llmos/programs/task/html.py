"""Outcomes as one HTML page that needs nothing else: figures, charts, the first rows."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from itertools import islice
from pathlib import Path

from llmos.abi.tasks import TaskSpec
from llmos.programs.task.records import Layout, Records, Tally, upper_ms
from llmos.programs.task.svg import Bar, columns_chart, rows_chart
from llmos.programs.task.tables import as_text, as_time, summary

SHOWN_ROWS = 200
SHOWN_LABELS = 20
CELL_CHARS = 400

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #fff; --line: #d8dee4;
  --bar: #2f6feb; --bad: #b3261e; --card: #f6f8fa }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117;
  --line: #30363d; --bar: #6ea8fe; --bad: #ff8a80; --card: #161b22 } }
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; color: var(--ink);
  background: var(--paper); margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 1rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem }
dt { color: var(--soft) } dd { margin: 0 }
svg { width: 100%; height: auto } svg text { font-size: 13px; fill: var(--ink) }
svg .name { fill: var(--soft) } svg .bar { fill: var(--bar) } svg .axis { stroke: var(--line) }
table { border-collapse: collapse; width: 100%; font-size: .85rem }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .5rem; text-align: left;
  vertical-align: top; overflow-wrap: break-word; white-space: pre-wrap }
th { color: var(--soft); white-space: nowrap } .bad { color: var(--bad) }
.wide { overflow-x: auto } .note { color: var(--soft) }
"""


def page_head(title: str) -> str:
    """The beginning of a page that loads nothing; the title is HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    )


def write_html(path: Path, spec: TaskSpec, layout: Layout, every: Records, tally: Tally) -> None:
    """The report. Whatever comes from outside is escaped, and the page may load nothing."""
    title = escape(spec.title or f"{spec.kind.value} with {spec.model}")
    with path.open("w", encoding="utf-8") as file:
        file.write(page_head(title))
        file.write("<dl>\n")
        for name, value in summary(spec, tally):
            bad = ' class="bad"' if name.startswith("Failed") else ""
            file.write(f"<dt>{escape(name)}</dt><dd{bad}>{escape(value)}</dd>\n")
        file.write("</dl>\n")
        for heading, chart in _charts(tally):
            file.write(f"<h2>{escape(heading)}</h2>\n{chart}\n")
        _write_rows(file.write, layout, every, tally)
        file.write("</body>\n</html>\n")


def _charts(tally: Tally) -> list[tuple[str, str]]:
    made = []
    if tally.labels:
        made.append(("Labels", rows_chart("Labels", _label_bars(tally))))
    if tally.times:
        first, last = min(tally.times), max(tally.times)
        bars = [
            Bar(as_time(upper_ms(n)), tally.times[n], f"{tally.times[n]:,}")
            for n in range(first, last + 1)
        ]
        what = "From asking to answer"
        made.append((what, columns_chart(what, bars, "at most")))
    if tally.errors:
        bars = [Bar(code, n, f"{n:,}") for code, n in tally.errors.most_common(SHOWN_LABELS)]
        made.append(("Failures", rows_chart("Failures", bars)))
    return made


def _label_bars(tally: Tally) -> list[Bar]:
    total = sum(tally.labels.values())
    listed = sorted(tally.labels.items(), key=lambda item: (-item[1], item[0]))
    bars = [Bar(name, n, f"{n:,} ({n / total:.1%})") for name, n in listed[:SHOWN_LABELS]]
    if rest := sum(n for _, n in listed[SHOWN_LABELS:]):
        name = f"{len(listed) - SHOWN_LABELS} others"
        bars.append(Bar(name, rest, f"{rest:,} ({rest / total:.1%})"))
    return bars


def _write_rows(
    write: Callable[[str], object], layout: Layout, every: Records, tally: Tally
) -> None:
    """The first of them; without a column of errors where there are none."""
    total = tally.completed + tally.failed
    shown = min(total, SHOWN_ROWS)
    names = layout.names if tally.failed else layout.names[:-1]
    write("<h2>Results</h2>\n")
    if shown < total:
        write(f'<p class="note">The first {shown:,} of {total:,}.</p>\n')
    write('<div class="wide"><table>\n<tr>')
    write("".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>\n")
    for record in islice(every(), shown):
        bad = record.kept is not None and record.kept.error is not None
        write('<tr class="bad">' if bad else "<tr>")
        values = layout.values(record)
        for name in names:
            text = as_text(values[name])
            cut = text if len(text) <= CELL_CHARS else text[:CELL_CHARS] + "…"
            write(f"<td>{escape(cut)}</td>")
        write("</tr>\n")
    write("</table></div>\n")
