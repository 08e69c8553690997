"""What the page Tasks sends and shows: a declaration, how far one is, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmos.abi.jobs import ENDED, JobRecord
from llmos.abi.syscall_jobs import JobReply
from llmos.abi.tasks import TASK, OutputFormat, TaskKind
from llmos.errors import InvalidRequest
from llmos.sdk.draw import amounts

KINDS = tuple(kind.value for kind in TaskKind)
FORMATS = (
    OutputFormat.JSONL.value,
    OutputFormat.CSV.value,
    OutputFormat.MARKDOWN.value,
    OutputFormat.HTML.value,
)
"""What every task from here is told to make: the first is read for the table."""
MAX_ROWS = 50
MAX_CELL_CHARS = 240
MAX_PREVIEW_BYTES = 256 * 1024
AUTO = "auto"


def declaration(given: Mapping[str, Any], file_id: str | None) -> dict[str, Any]:
    """The body of a task. `given`: type, model, column, labels, to, prompt, items, name.

    Raises InvalidRequest where there is nothing to work on.
    """
    source: dict[str, Any] = {}
    lines = [line for line in (given.get("items") or "").splitlines() if line.strip()]
    if file_id is not None:
        source["file"] = file_id
        if given.get("column"):
            source["column"] = given["column"].strip()
    elif lines:
        source["items"] = lines
    else:
        raise InvalidRequest("give a file, or lines to work on", param="input")
    body: dict[str, Any] = {
        "type": given["type"],
        "model": given.get("model") or AUTO,
        "input": source,
        "output": {"formats": list(FORMATS)},
    }
    if labels := _list(given.get("labels")):
        body["labels"] = labels
    for name in ("to", "prompt", "name"):
        if text := (given.get(name) or "").strip():
            body[name] = text
    return body


def _list(text: str | None) -> list[str]:
    parts = (text or "").replace("，", ",").replace("\n", ",").split(",")
    return [part.strip() for part in parts if part.strip()]


def kind_of(job: JobRecord) -> str:
    """What a task does."""
    return str(job.spec.inputs.get(TASK, {}).get("kind", "–"))


def model_of(job: JobRecord) -> str:
    """Who does it."""
    return str(job.spec.inputs.get(TASK, {}).get("model", "–"))


def done_share(job: JobRecord) -> float | None:
    """How far it is, 0 to 1."""
    if job.state in ENDED and job.state == "succeeded":
        return 1.0
    progress = job.progress
    if progress is None or progress.total <= 0:
        return None
    return progress.done / progress.total


def row(job: JobRecord, chip: Mapping[str, str], kind: str, now_ns: int) -> dict[str, Any]:
    """A line of the table of tasks; `kind` is what it does, in words."""
    share = done_share(job)
    end_ns = job.ended_ns or now_ns
    took = "–" if job.started_ns is None else amounts.span((end_ns - job.started_ns) / 1e9)
    bar = {"bar": round(share, 3), "text": f"{100 * share:.0f} %"} if share is not None else "–"
    return {
        "id": job.job_id,
        "cells": {
            "name": {"text": job.spec.name or f"…{job.job_id[-8:]}", "title": job.job_id},
            "state": dict(chip),
            "type": kind,
            "model": model_of(job),
            "progress": bar,
            "took": took,
        },
    }


def facts(reply: JobReply) -> list[tuple[str, str]]:
    """What a task came to, by texts' keys; what is not known is left out."""
    job = reply.job
    outputs = job.outputs or {}
    counts: dict[str, Any] = dict(job.progress.counts) if job.progress is not None else {}
    counts.update(_dict(outputs.get("counts")))
    rows_per_s = outputs.get("rows_per_s")
    found: list[tuple[str, str]] = [
        ("model", model_of(job)),
        ("chosen", str(outputs.get("chosen") or "")),
        ("completed", _count(counts.get("completed"))),
        ("failed", _count(counts.get("failed"))),
        ("tokens", _count(_tokens(_dict(outputs.get("usage"))))),
        ("speed", amounts.rate(rows_per_s) if isinstance(rows_per_s, int | float) else ""),
        ("eta", "" if reply.eta_s is None else amounts.span(reply.eta_s)),
        ("reason", job.error.message if job.error is not None else job.reason),
    ]
    return [(name, value) for name, value in found if value]


def _dict(value: Any) -> dict[str, Any]:
    """What a program put out, where it is what it should be."""
    return value if isinstance(value, dict) else {}


def _tokens(outputs: Mapping[str, Any]) -> int | None:
    parts = [outputs.get(name) for name in ("prompt_tokens", "completion_tokens")]
    known = [part for part in parts if isinstance(part, int)]
    return sum(known) if known else None


def _count(value: Any) -> str:
    return amounts.count(value) if isinstance(value, int) else ""


def labels_of(job: JobRecord) -> list[tuple[str, int]]:
    """How often each label was given, the most frequent first."""
    labels = _dict((job.outputs or {}).get("labels"))
    pairs = [(str(name), num) for name, num in labels.items() if isinstance(num, int)]
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def files_of(job: JobRecord) -> list[str]:
    """The formats that results are there in."""
    files = _dict((job.outputs or {}).get("files"))
    made = {str(name).removeprefix("raw:") for name, file_id in files.items() if file_id}
    order = [*FORMATS, "rows", "errors"]
    return [name for name in order if name in made]


def preview(data: bytes) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and first rows of results as JSON lines; a line that was cut off is left out."""
    records: list[dict[str, Any]] = []
    for line in data.split(b"\n")[: MAX_ROWS + 1]:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and len(records) < MAX_ROWS:
            records.append(record)
    columns = list(dict.fromkeys(name for record in records for name in record))
    rows = [
        {"id": str(number), "cells": {name: _cell(record.get(name)) for name in columns}}
        for number, record in enumerate(records)
    ]
    return columns, rows


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_CELL_CHARS else text[: MAX_CELL_CHARS - 1] + "…"
