"""Lists as tables: which columns things of a kind have."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from llmos.abi.jobs import JobRecord, Schedule
from llmos.abi.principal import Key
from llmos.abi.program import ProgramEntry
from llmos.abi.registry import ModelVersion
from llmos.abi.settings import SettingInfo
from llmos.abi.syscall import ProcessInfo, ReplicaInfo
from llmos.sdk.draw import amounts
from llmos.sdk.draw.cards import plain_cell, progress_text, short, took
from llmos.sdk.draw.columns import table as text_table
from llmos.sdk.draw.life import NS
from llmos.sdk.draw.sheet import Cell, chip, table, text_of
from llmos.sdk.draw.words import plain

MAX_ROWS = 200
"""A longer table says how much is left out."""
MAX_TEXT_ROWS = 20
MAX_COLUMNS = 8

Row = Callable[[Any], tuple[Cell, ...]]


def _age(then_ns: int) -> str:
    return amounts.span(max(0.0, (time.time_ns() - then_ns) / NS))


def _model(model: ModelVersion) -> tuple[Cell, ...]:
    return (
        model.ref,
        ", ".join(model.aliases) or "–",
        ", ".join(model.kinds),
        model.driver,
        amounts.size(model.size_bytes),
        amounts.count(model.context_length),
        _age(model.created_ns),
    )


def _process(info: ProcessInfo) -> tuple[Cell, ...]:
    done = "–" if info.progress is None else f"{100 * info.progress:.0f} %"
    tokens = f"{info.prompt_tokens} + {info.completion_tokens}"
    return (
        info.process_id,
        chip(info.state),
        info.model,
        info.principal,
        info.service_class.name.lower(),
        done if info.kind == "job" else tokens,
        _age(info.created_ns),
        short(info.reason),
    )


def _replica(one: ReplicaInfo) -> tuple[Cell, ...]:
    rows = f"{one.num_running} of {one.num_slots}"
    memory = amounts.size(one.reserved_bytes)
    return one.model, chip(one.state), one.device, one.dtype, memory, rows, one.replica_id


def _job(job: JobRecord) -> tuple[Cell, ...]:
    return (
        job.job_id,
        chip(job.state.value),
        job.spec.program,
        job.spec.name or "–",
        progress_text(job) or "–",
        took(job, time.time_ns()),
        short(job.reason),
    )


def _key(key: Key) -> tuple[Cell, ...]:
    return (
        key.name,
        key.tenant_id,
        str(key.role),
        key.max_class.name.lower(),
        f"{key.weight:g}",
        chip("ended" if key.revoked_ns else "ready"),
    )


def _schedule(one: Schedule) -> tuple[Cell, ...]:
    return one.schedule_id, one.cron, one.timezone, one.spec.program, "paused" * one.paused or "–"


def _setting(one: SettingInfo) -> tuple[Cell, ...]:
    return one.key, plain_cell(one.value), one.origin, short(one.description)


def _program(one: ProgramEntry) -> tuple[Cell, ...]:
    return one.name, short(one.about, 100), ", ".join(one.inputs)


_COLUMNS: dict[type, tuple[tuple[str, ...], Row]] = {
    ModelVersion: (("model", "aliases", "for", "driver", "size", "context", "age"), _model),
    ProcessInfo: (
        ("process", "state", "model", "owner", "class", "done", "age", "why"),
        _process,
    ),
    ReplicaInfo: (
        ("model", "state", "device", "weights", "memory", "rows", "replica"),
        _replica,
    ),
    JobRecord: (("job", "state", "program", "name", "progress", "took", "why"), _job),
    Key: (("key", "tenant", "role", "class", "weight", "state"), _key),
    Schedule: (("schedule", "cron", "timezone", "program", "state"), _schedule),
    SettingInfo: (("setting", "value", "origin", "about"), _setting),
    ProgramEntry: (("program", "about", "inputs"), _program),
}


def columns_of(items: Sequence[Any]) -> tuple[Sequence[str], Row]:
    """Headers, and what makes a row. A struct without its own has its first fields."""
    first = items[0]
    for kind, found in _COLUMNS.items():
        if all(isinstance(item, kind) for item in items):
            return found
    kind = type(first)
    if isinstance(first, msgspec.Struct) and all(type(item) is kind for item in items):
        names = first.__struct_fields__[:MAX_COLUMNS]
        return names, lambda item: tuple(plain_cell(getattr(item, name)) for name in names)
    return ("value",), lambda item: (plain_cell(item),)


def html_table(items: Sequence[Any]) -> str:
    """A part of a sheet."""
    if not items:
        return '<p class="dim">nothing</p>'
    headers, row = columns_of(items)
    return table(headers, map(row, items[:MAX_ROWS]), max(0, len(items) - MAX_ROWS))


def lines(items: Sequence[Any]) -> str:
    """For a terminal."""
    if not items:
        return "[]"
    headers, row = columns_of(items)
    shown = [[plain(text_of(cell)) for cell in row(item)] for item in items[:MAX_TEXT_ROWS]]
    made = text_table([name.upper() for name in headers], shown)
    more = len(items) - MAX_TEXT_ROWS
    return f"{made}\n… {more} more" if more > 0 else made
