"""Markup of a notebook: a sheet that brings its style along, tables, facts. Words are escaped here.

Colours are those of the page around it, light or dark; only series have their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmos.sdk.draw.life import tone
from llmos.sdk.draw.words import escaped

_SERIES = ("#3b6cf5", "#0f9494", "#c26a05", "#9a52d0", "#c0476a", "#6f8426")
_COLORS = "".join(
    f".llmos .c{place} {{--c:{color}}}" for place, color in enumerate(_SERIES, start=1)
)
STYLE = (
    "<style>"
    ".llmos {--line:rgb(128 128 128/.35);--soft:rgb(128 128 128/.14);--c:#3b6cf5;"
    "font:13px/1.5 system-ui,sans-serif;max-width:960px;overflow-x:auto}"
    ".llmos h3 {margin:10px 0 4px;font-size:13px}.llmos p {margin:2px 0}"
    ".llmos .dim,.llmos em,.llmos time {opacity:.72;font-style:normal}"
    ".llmos table {border-collapse:collapse;margin:4px 0;font-size:13px}"
    ".llmos :is(td,th) {padding:3px 10px;text-align:left;border-bottom:1px solid var(--line);"
    "vertical-align:top;overflow-wrap:anywhere;background:none}"
    ".llmos td.num {text-align:right;font-variant-numeric:tabular-nums}"
    ".llmos .said {white-space:pre-wrap;overflow-wrap:anywhere;margin:4px 0}"
    ".llmos .chip {padding:0 7px;border-radius:9px;background:var(--soft);font-size:12px}"
    ".llmos .chip.good {color:#17794a}.llmos .chip.bad {color:#c5352b}"
    ".llmos .chip.warn {color:#a26a00}.llmos .chip.held {color:#3b6cf5}"
    ".llmos .bad {color:#c5352b}"
    ".llmos .beside {display:flex;gap:18px}.llmos .beside > div {flex:1;min-width:0}"
    ".llmos .bar {display:flex;align-items:center;gap:10px}"
    ".llmos .bar > i {flex:1;max-width:360px;height:8px;border-radius:4px;background:var(--soft);"
    "overflow:hidden}.llmos .bar b {display:block;height:8px;background:var(--c)}"
    + _COLORS
    + ".llmos .chart {width:100%;max-width:640px;height:auto;display:block}"
    ".llmos .chart text {fill:currentColor;opacity:.72;font:11px system-ui,sans-serif}"
    ".llmos .chart .rule {stroke:var(--line);fill:none}"
    ".llmos .chart .line {stroke:var(--c);stroke-width:1.8;fill:none;stroke-linejoin:round}"
    ".llmos .chart .area {fill:var(--c);opacity:.12}.llmos .chart .dot {fill:var(--c)}"
    ".llmos :is(.legend,.parts) {list-style:none;display:flex;flex-wrap:wrap;gap:4px 16px;"
    "margin:4px 0;padding:0}"
    ".llmos :is(.legend,.parts) i {display:inline-block;width:10px;height:10px;border-radius:3px;"
    "background:var(--c);margin-right:6px}"
    ".llmos .parts em,.llmos .stays em {margin-left:6px}"
    ".llmos .stack {display:flex;height:16px;border-radius:5px;overflow:hidden;"
    "background:var(--soft)}.llmos .stack i {background:var(--c);min-width:2px}"
    ".llmos .free {--c:var(--soft)}"
    ".llmos .life {display:flex;height:12px;border-radius:4px;overflow:hidden;margin:6px 0}"
    ".llmos .life i {background:#98a1b0;min-width:3px}.llmos .life i.good {background:#2c9a63}"
    ".llmos .life i.done {background:#3b6cf5}.llmos .life i.bad {background:#c5352b}"
    ".llmos .life i.warn {background:#c98a1b}.llmos .life i.held {background:#9a52d0}"
    ".llmos .stays,.llmos .stays ol {list-style:none;margin:0;padding:0 0 0 10px}"
    ".llmos .stays time {display:inline-block;min-width:76px}"
    ".llmos .matrix td {text-align:right;background:color-mix(in srgb,var(--c) var(--part),"
    "transparent)}.llmos .matrix td.wrong {--c:#c5352b}"
    ".llmos .labels {display:grid;gap:4px;max-width:460px}"
    ".llmos .label {display:grid;grid-template-columns:minmax(80px,1fr) 2fr 60px;gap:10px;"
    "align-items:center}.llmos .label i {height:8px;border-radius:4px;background:var(--soft)}"
    ".llmos .label b {display:block;height:8px;border-radius:4px;background:var(--c)}"
    "</style>"
)


@dataclass(frozen=True, slots=True)
class Markup:
    """A cell that is markup already, and what it says as text."""

    html: str
    text: str


Cell = str | Markup


def sheet(*parts: str) -> str:
    """What a notebook is given."""
    return f'<div class="llmos">{STYLE}{"".join(parts)}</div>'


def chip(state: str) -> Markup:
    """A state, coloured."""
    return Markup(f'<span class="chip {tone(state)}">{escaped(state)}</span>', state)


def markup_of(cell: Cell) -> str:
    """A cell in a page."""
    return cell.html if isinstance(cell, Markup) else escaped(cell)


def text_of(cell: Cell) -> str:
    """A cell on a terminal."""
    return cell.text if isinstance(cell, Markup) else cell


def table(headers: Sequence[str], rows: Iterable[Sequence[Cell]], more: int = 0) -> str:
    """Rows under headers; `more` were left out."""
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in headers)
    body = "".join(
        "<tr>" + "".join(f"<td>{markup_of(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    rest = f'<p class="dim">… {more} more</p>' if more else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"


def facts(pairs: Iterable[tuple[str, Cell]]) -> str:
    """Names and what they are, a line each."""
    rows = "".join(
        f'<tr><th scope="row">{escaped(name)}</th><td>{markup_of(cell)}</td></tr>'
        for name, cell in pairs
    )
    return f"<table>{rows}</table>"


def heading(text: str) -> str:
    """Of a part of a sheet."""
    return f"<h3>{escaped(text)}</h3>"


def said(text: str) -> str:
    """What a model wrote, with its line breaks and as nothing but text."""
    return f'<div class="said">{escaped(text)}</div>'


def note(text: str) -> str:
    """A line that stands back."""
    return f'<p class="dim">{escaped(text)}</p>'


def problem(text: str) -> str:
    """What went wrong."""
    return f'<p class="bad">{escaped(text)}</p>'


def bar(share: float | None, text: str) -> str:
    """How far something is; None: nobody knows."""
    width = 0.0 if share is None else 100 * max(0.0, min(1.0, share))
    return (
        f'<div class="bar"><i><b style="width:{width:.1f}%"></b></i>'
        f"<span>{escaped(text)}</span></div>"
    )


def beside(parts: Iterable[tuple[str, str]]) -> str:
    """Parts (a heading, markup) next to one another."""
    columns = "".join(f"<div>{heading(title)}{inner}</div>" for title, inner in parts)
    return f'<div class="beside">{columns}</div>'
