"""Outcomes as text: JSON lines, an array, CSV, a Markdown table, the bare answers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.tasks import TaskSpec
from llmos.programs.task.records import Layout, Records, Tally

_json = msgspec.json.Encoder()


def write_jsonl(path: Path, spec: TaskSpec, layout: Layout, every: Records, tally: Tally) -> None:
    """An object for each input, with the columns it has and its result or its error."""
    with path.open("wb") as file:
        for record in every():
            file.write(_json.encode(layout.values(record)) + b"\n")


def write_json(path: Path, spec: TaskSpec, layout: Layout, every: Records, tally: Tally) -> None:
    """The same as one array."""
    with path.open("wb") as file:
        before = b"[\n"
        for record in every():
            file.write(before + _json.encode(layout.values(record)))
            before = b",\n"
        file.write(b"\n]\n")


def write_csv(path: Path, spec: TaskSpec, layout: Layout, every: Records, tally: Tally) -> None:
    """RFC 4180 in UTF-8; what is no text is as JSON writes it, what is not there is empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(layout.names)
        for record in every():
            writer.writerow(map(as_text, layout.values(record).values()))


def write_markdown(
    path: Path, spec: TaskSpec, layout: Layout, every: Records, tally: Tally
) -> None:
    """A heading, what it came to, and a table of all rows."""
    names = layout.names
    with path.open("w", encoding="utf-8") as file:
        file.write(f"# {_cell(spec.title or spec.kind.value)}\n\n")
        for name, value in summary(spec, tally):
            file.write(f"- {name}: {_cell(value)}\n")
        file.write("\n| " + " | ".join(map(_cell, names)) + " |\n")
        file.write("|" + " --- |" * len(names) + "\n")
        for record in every():
            cells = (_cell(as_text(value)) for value in layout.values(record).values())
            file.write("| " + " | ".join(cells) + " |\n")


def write_text(path: Path, spec: TaskSpec, layout: Layout, every: Records, tally: Tally) -> None:
    """The results alone, a line each; one of several lines has an empty line after it. Of an input
    without a result there is an empty line."""
    with path.open("w", encoding="utf-8") as file:
        for record in every():
            values = layout.values(record)
            parts = [as_text(values[name]) for name in layout.results[:-1]]
            text = "\t".join(part for part in parts if part)
            file.write(text + ("\n\n" if "\n" in text else "\n"))


def as_text(value: Any) -> str:
    """What stands in a cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return _json.encode(value).decode()


def as_time(ms: float) -> str:
    """Of what takes a moment."""
    return f"{ms:.3g} ms" if ms < 1000 else f"{ms / 1000:.3g} s"


def _cell(text: str) -> str:
    """Of a Markdown table: one line, with nothing in it that is markup."""
    line = " ".join(text.split())
    for char in "\\|`*_<>[]":
        line = line.replace(char, "\\" + char)
    return line


def summary(spec: TaskSpec, tally: Tally) -> list[tuple[str, str]]:
    """What it came to, for people."""
    seconds = tally.seconds
    total = tally.completed + tally.failed
    tokens = f"{tally.prompt_tokens:,} in, {tally.completion_tokens:,} out"
    made = [
        ("Model", ", ".join(sorted(tally.models)) or spec.model),
        ("Inputs", f"{total:,}: {tally.completed:,} done, {tally.failed:,} failed"),
        ("Time", f"{seconds:,.1f} s" + (f", {total / seconds:,.1f} a second" if seconds else "")),
        ("Tokens", tokens),
    ]
    if tally.completed:
        p50, p95 = tally.quantile_ms(0.5), tally.quantile_ms(0.95)
        made.append(
            ("From asking to answer", f"half within {as_time(p50)}, 95 % within {as_time(p95)}")
        )
    if tally.cost is not None:
        made.append(("Cost", f"${tally.cost:,.4f}"))
    if spec.reason:
        made.append(("Chosen", spec.reason))
    for code, number in tally.errors.most_common(10):
        made.append((f"Failed with {code}", f"{number:,}"))
    return made
