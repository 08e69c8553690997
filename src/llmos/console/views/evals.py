"""What the page Evaluate shows: who scored what, what got worse, and what was taken for what."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from llmos.abi.evals import EVALUATE
from llmos.abi.jobs import JobRecord

MAX_CLASSES = 20
REPORT = "raw:json"


def evaluations(jobs: Iterable[JobRecord]) -> list[JobRecord]:
    """Those that have a score first, by their kind of score and the better first."""
    found = [job for job in jobs if job.spec.program == EVALUATE]

    def place(job: JobRecord) -> tuple[bool, str, float]:
        name, row = main_score(job)
        value = row.get("value")
        if not isinstance(value, int | float):
            return True, name, 0.0
        return False, name, -value if row.get("higher_is_better", True) else value

    return sorted(found, key=place)


def main_score(job: JobRecord) -> tuple[str, dict[str, Any]]:
    """The score that decides, and its row; empty before there is one."""
    outputs = job.outputs or {}
    name = str(outputs.get("score") or "")
    row = _dict(_dict(outputs.get("scores")).get(name))
    return name, row


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def figure(value: Any) -> str:
    """A score as people read it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.4g}" if is_number and math.isfinite(value) else "–"


def interval(row: Mapping[str, Any]) -> str:
    """The score with its interval of confidence, where there is one."""
    text = figure(row.get("value"))
    if row.get("low") is None or row.get("high") is None:
        return text
    return f"{text} ({figure(row['low'])}–{figure(row['high'])})"


def worse(row: Mapping[str, Any]) -> bool:
    """Whether it got worse than the other model beyond chance: the whole interval is on the bad
    side."""
    difference = _dict(row.get("difference"))
    low, high = difference.get("low"), difference.get("high")
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return False
    return high < 0 if row.get("higher_is_better", True) else low > 0


def cells(job: JobRecord, chip: Mapping[str, str], words: Mapping[str, str]) -> dict[str, Any]:
    """A line of the leaderboard. `words` are `worse` and `kept`, as chips say them."""
    outputs = job.outputs or {}
    name, row = main_score(job)
    change: Any = "–"
    if row.get("difference"):
        text = f"{figure(_dict(row['difference']).get('value'))}"
        is_worse = worse(row)
        change = {
            "chip": f"{text} {words['worse'] if is_worse else words['kept']}",
            "tone": "bad" if is_worse else "good",
        }
    return {
        "name": {"text": job.spec.name or f"…{job.job_id[-8:]}", "title": job.job_id},
        "state": dict(chip),
        "model": str(outputs.get("model") or "–"),
        "score": name or "–",
        "value": interval(row),
        "against": str(outputs.get("against") or "–"),
        "change": change,
        "examples": str(outputs.get("examples") or "–"),
    }


def scores(job: JobRecord) -> list[dict[str, Any]]:
    """Every score of one evaluation as rows."""
    rows = _dict((job.outputs or {}).get("scores"))
    return [
        {
            "id": name,
            "cells": {
                "score": name,
                "value": interval(_dict(row)),
                "against": figure(_dict(row).get("against")),
                "change": figure(_dict(_dict(row).get("difference")).get("value")),
            },
            "look": "worse" if worse(_dict(row)) else "",
        }
        for name, row in rows.items()
    ]


def report_of(job: JobRecord) -> str | None:
    """The file with the whole report."""
    files = _dict((job.outputs or {}).get("files"))
    found = files.get(REPORT)
    return found if isinstance(found, str) else None


def confusion(data: bytes, title: str) -> str:
    """The matrix of a report as a table; empty where there is none, or it has too many classes."""
    try:
        report = _dict(msgspec.json.decode(data))
    except msgspec.DecodeError:
        return ""
    labels, matrix = report.get("labels"), report.get("confusion")
    if not isinstance(labels, list) or not isinstance(matrix, list):
        return ""
    if not 0 < len(labels) <= MAX_CLASSES or len(matrix) < len(labels):
        return ""
    most = max((_count(n) for line in matrix for n in line), default=0) or 1
    heads = "".join(f'<th scope="col">{html.escape(str(label))}</th>' for label in labels)
    lines = "".join(
        f'<tr><th scope="row">{html.escape(str(label))}</th>{_line(line, number, most)}</tr>'
        for number, (label, line) in enumerate(zip(labels, matrix, strict=False))
    )
    return (
        f'<h3>{html.escape(title)}</h3><table class="matrix"><thead><tr><td></td>{heads}</tr>'
        f"</thead><tbody>{lines}</tbody></table>"
    )


def _count(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _line(line: Sequence[Any], number: int, most: float) -> str:
    return "".join(
        f'<td class="{"right" if place == number else "wrong"}"'
        f' style="--part:{60 * _count(value) / most:.0f}%">{_count(value):g}</td>'
        for place, value in enumerate(line)
    )
