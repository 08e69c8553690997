"""What the page Evaluate shows: who scored what, and what got worse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmos.abi.evals import EVALUATE
from llmos.abi.jobs import JobRecord
from llmos.sdk.draw.scores import dict_of, figure, interval, main_score, worse

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


def cells(job: JobRecord, chip: Mapping[str, str], words: Mapping[str, str]) -> dict[str, Any]:
    """A line of the leaderboard. `words` are `worse` and `kept`, as chips say them."""
    outputs = job.outputs or {}
    name, row = main_score(job)
    change: Any = "–"
    if row.get("difference"):
        text = f"{figure(dict_of(row['difference']).get('value'))}"
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
    rows = dict_of((job.outputs or {}).get("scores"))
    return [
        {
            "id": name,
            "cells": {
                "score": name,
                "value": interval(dict_of(row)),
                "against": figure(dict_of(row).get("against")),
                "change": figure(dict_of(dict_of(row).get("difference")).get("value")),
            },
            "look": "worse" if worse(dict_of(row)) else "",
        }
        for name, row in rows.items()
    ]


def report_of(job: JobRecord) -> str | None:
    """The file with the whole report."""
    files = dict_of((job.outputs or {}).get("files"))
    found = files.get(REPORT)
    return found if isinstance(found, str) else None
