"""What there is to say of one thing: a title, facts, and drawings where a picture says more."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from llmos.abi.home import DiskReport
from llmos.abi.jobs import JobRecord
from llmos.abi.memory import DeviceMemory, MemoryInfo
from llmos.abi.registry import ModelVersion
from llmos.abi.syscall import NewKey, ProcessInfo, ProcessStory, ReplicaInfo, StatusInfo
from llmos.abi.syscall_jobs import JobReply
from llmos.sdk.draw import amounts, scores
from llmos.sdk.draw.charts import NUM_COLORS, Part, part_list, stacked_bar
from llmos.sdk.draw.life import NS, stays, timeline
from llmos.sdk.draw.sheet import Cell, Markup, bar, chip, heading, note, problem, text_of
from llmos.sdk.draw.sheet import facts as facts_html
from llmos.sdk.draw.sheet import table as table_html
from llmos.sdk.draw.words import escaped

MAX_TEXT_CHARS = 60


@dataclass(frozen=True, slots=True)
class Card:
    """`facts` with the telling ones first: a terminal shows `num_short` of them in one line.
    `drawn` are markup."""

    title: str
    facts: list[tuple[str, Cell]] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    num_short: int = 5

    def html(self) -> str:
        """As a part of a sheet."""
        return heading(self.title) + facts_html(self.facts) + "".join(self.drawn)

    def text(self) -> str:
        """As one line."""
        told = [text_of(cell) for _, cell in self.facts[: self.num_short]]
        return "  ".join([self.title, *(one for one in told if one not in ("", "–"))])


def short(text: str, most: int = MAX_TEXT_CHARS) -> str:
    """Its beginning."""
    return text if len(text) <= most else text[: most - 1] + "…"


@functools.singledispatch
def card(value: Any) -> Card:
    """Anything else is its fields."""
    if not isinstance(value, msgspec.Struct):
        return Card(type(value).__name__, [("value", short(str(value)))])
    pairs: list[tuple[str, Cell]] = [
        (name, plain_cell(part)) for name, part in msgspec.structs.asdict(value).items()
    ]
    return Card(type(value).__name__, pairs)


def plain_cell(value: Any) -> str:
    """A value in a table."""
    if value is None or value in ("", [], {}):
        return "–"
    if isinstance(value, msgspec.Struct | dict | list):
        return short(msgspec.json.encode(value, enc_hook=str).decode())
    return short(str(value))


@card.register
def _(model: ModelVersion) -> Card:
    pairs: list[tuple[str, Cell]] = [
        ("driver", model.driver),
        ("for", ", ".join(model.kinds)),
        ("size", amounts.size(model.adapter.size_bytes if model.adapter else model.size_bytes)),
        ("parameters", amounts.count(model.num_parameters) if model.num_parameters else "–"),
        ("context", f"{amounts.count(model.context_length)} tokens"),
        ("architecture", model.architecture or "–"),
        ("weights", model.loaded_as or model.dtype or "–"),
        ("adapter", f"{model.adapter.method} over {model.adapter.base}" if model.adapter else "–"),
        ("aliases", ", ".join(model.aliases) or "–"),
        ("license", model.license or "–"),
        ("source", model.source),
        ("digest", model.digest),
    ]
    return Card(model.ref, pairs)


@card.register
def _(made: NewKey) -> Card:
    """Without its secret: a notebook keeps what it shows."""
    pairs: list[tuple[str, Cell]] = [
        ("tenant", made.key.tenant_id),
        ("role", str(made.key.role)),
        ("class", made.key.max_class.name.lower()),
        ("secret", "in .secret, not shown"),
    ]
    return Card(f"key {made.key.name}", pairs)


@card.register
def _(info: ProcessInfo) -> Card:
    return Card(info.process_id, process_facts(info))


def process_facts(info: ProcessInfo, now_ns: int | None = None) -> list[tuple[str, Cell]]:
    """State first, then what it is and how far."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    took_s = ((info.ended_ns or now_ns) - (info.started_ns or info.created_ns)) / NS
    pairs: list[tuple[str, Cell]] = [
        ("state", chip(info.state)),
        ("model", info.model),
        ("owner", info.principal),
        ("class", info.service_class.name.lower()),
        ("tokens", f"{info.prompt_tokens} + {info.completion_tokens}"),
        ("took", amounts.span(max(0.0, took_s))),
        ("why", info.reason),
    ]
    if info.spent is not None:
        energy = "" if info.spent.joules is None else f", {info.spent.joules:.3g} J"
        pairs.append(("used", f"{amounts.span(info.spent.cpu_s)} of processor{energy}"))
    return pairs


@card.register
def _(story: ProcessStory) -> Card:
    drawn = timeline(stays(story, time.time_ns()), str)
    return Card(story.info.process_id, process_facts(story.info), [drawn], num_short=2)


@card.register
def _(replica: ReplicaInfo) -> Card:
    pairs: list[tuple[str, Cell]] = [
        ("state", chip(replica.state)),
        ("model", replica.model),
        ("device", replica.device),
        ("weights", replica.dtype),
        ("memory", amounts.size(replica.reserved_bytes)),
        ("rows", f"{replica.num_running} of {replica.num_slots}"),
        ("driver", replica.engine or replica.driver),
        ("why", replica.reason),
        *(("warning", one) for one in replica.warnings),
    ]
    return Card(replica.replica_id, pairs)


@card.register
def _(status: StatusInfo) -> Card:
    waiting = ", ".join(f"{n} {name}" for name, n in status.waiting.items() if n)
    pairs: list[tuple[str, Cell]] = [
        ("state", chip("ready" if status.ready else "not ready")),
        ("running", f"{status.num_running} running"),
        ("waiting", f"{status.num_queued} waiting" + (f" ({waiting})" if waiting else "")),
        ("tokens", f"{amounts.count(status.num_tokens)} tokens"),
        (
            "memory",
            f"{amounts.size(status.memory_reserved_bytes)} of "
            f"{amounts.size(status.memory_budget_bytes)}",
        ),
        ("policy", status.policy),
        ("up", amounts.span((time.time_ns() - status.started_ns) / NS)),
    ]
    return Card(f"LLMOS {status.version}", pairs, [problem(one) for one in status.problems])


@card.register
def _(memory: MemoryInfo) -> Card:
    drawn = [part for device in memory.devices for part in _device(device)]
    drawn += [
        problem(f"{one.model} lacks {amounts.size(one.need_bytes)}: {one.reason}")
        for one in memory.lacking
    ]
    pairs: list[tuple[str, Cell]] = [(one.device, _amount(one)) for one in memory.devices]
    return Card("memory", pairs, drawn)


def _amount(device: DeviceMemory) -> Markup:
    held, whole = amounts.size(device.reserved_bytes), amounts.size(device.budget_bytes)
    return Markup(escaped(f"{held} of {whole}"), f"{device.device} {held} of {whole}")


def _device(device: DeviceMemory) -> Iterable[str]:
    held = sorted(device.holdings, key=lambda one: -one.reserved_bytes)
    parts = [
        Part(
            f"{one.kind} {one.what}",
            one.reserved_bytes,
            amounts.size(one.reserved_bytes),
            f"c{place % NUM_COLORS + 1}",
        )
        for place, one in enumerate(held)
    ]
    free = max(0, device.budget_bytes - device.reserved_bytes)
    parts.append(Part("free", free, amounts.size(free), "free"))
    return (
        heading(device.device),
        stacked_bar(parts, device.budget_bytes, device.device),
        part_list(parts),
    )


@card.register
def _(report: DiskReport) -> Card:
    parts = [
        Part(name, size, amounts.size(size), f"c{place % NUM_COLORS + 1}")
        for place, (name, size) in enumerate(report.by_use.items())
        if size
    ]
    free = amounts.size(report.free_bytes)
    pairs: list[tuple[str, Cell]] = [
        ("free", f"{free} of {amounts.size(report.total_bytes)} free"),
        ("blobs", f"{amounts.size(report.blob_bytes)} in {report.num_blobs} blobs"),
        ("database", amounts.size(report.database_bytes)),
        ("snapshots", amounts.size(report.snapshot_bytes)),
        ("unused", amounts.size(report.unused_bytes)),
    ]
    bar_of = [stacked_bar(parts, report.blob_bytes, "disk"), part_list(parts)] if parts else []
    return Card("disk", pairs, bar_of, num_short=2)


@card.register
def _(job: JobRecord) -> Card:
    return Card(job.job_id, job_facts(job), job_drawings(job), num_short=4)


@card.register
def _(reply: JobReply) -> Card:
    pairs = job_facts(reply.job)
    if reply.eta_s is not None:
        pairs.append(("ends in", amounts.span(reply.eta_s)))
    return Card(reply.job.job_id, pairs, job_drawings(reply.job), num_short=4)


def job_facts(job: JobRecord, now_ns: int | None = None) -> list[tuple[str, Cell]]:
    """State first, then what it is and how far."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    pairs: list[tuple[str, Cell]] = [
        ("state", chip(job.state.value)),
        ("program", job.spec.program),
        ("name", job.spec.name or "–"),
        ("progress", progress_text(job) or "–"),
        ("took", took(job, now_ns)),
        ("why", job.reason or "–"),
    ]
    if job.error is not None:
        pairs.append(("error", f"{job.error.message} ({job.error.code})"))
    return pairs


def took(job: JobRecord, now_ns: int) -> str:
    """Since it began, until it ended or now."""
    if job.started_ns is None:
        return "–"
    return amounts.span(max(0.0, ((job.ended_ns or now_ns) - job.started_ns) / NS))


def share_of(job: JobRecord) -> float | None:
    """How far it is, 0 to 1."""
    if job.state == "succeeded":
        return 1.0
    if job.progress is None or job.progress.total <= 0:
        return None
    return min(1.0, job.progress.done / job.progress.total)


def progress_text(job: JobRecord) -> str:
    """How far it is, in words."""
    progress = job.progress
    if progress is None:
        return ""
    amount = f"{progress.done:g}" + (f" of {progress.total:g}" if progress.total else "")
    return " ".join(part for part in (amount, progress.unit, progress.what) if part)


def job_drawings(job: JobRecord) -> list[str]:
    """Its progress while it lives, and what came of it."""
    drawn = []
    if job.ended_ns is None:
        drawn.append(bar(share_of(job), progress_text(job) or job.state.value))
    if rows := score_rows(job):
        drawn.append(table_html(("score", "value", "against", "difference"), rows))
    metrics = scores.dict_of((job.outputs or {}).get("metrics"))
    told = [
        (split, name, scores.figure(value))
        for split, measured in metrics.items()
        for name, value in scores.dict_of(measured).items()
    ]
    if told:
        drawn.append(table_html(("split", "measure", "value"), told))
    for name, value in (job.outputs or {}).items():
        if name in ("summary", "status", "model"):
            drawn.append(note(f"{name}: {plain_cell(value)}"))
    return drawn


def score_rows(job: JobRecord) -> list[tuple[Cell, ...]]:
    """Every score of an evaluation with its interval, and beside the other model's."""
    rows = scores.dict_of((job.outputs or {}).get("scores"))
    return [
        (
            name,
            scores.interval(scores.dict_of(row)),
            scores.figure(scores.dict_of(row).get("against")),
            scores.figure(scores.dict_of(scores.dict_of(row).get("difference")).get("value")),
        )
        for name, row in rows.items()
    ]
