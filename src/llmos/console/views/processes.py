"""What the page Processes shows: which processes, in which order, and the story of one."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmos.abi.syscall import ProcessInfo, ProcessStory
from llmos.console.views import amounts

NS = 1_000_000_000
PAGE_SIZE = 50
ENDED = frozenset({"finished", "failed", "aborted", "succeeded", "cancelled", "dead"})
GROUPS = ("live", "ended", "all")

_TONES = {
    "running": "good",
    "ready": "good",
    "finished": "done",
    "succeeded": "done",
    "failed": "bad",
    "dead": "bad",
    "aborted": "warn",
    "cancelled": "warn",
    "suspended": "held",
    "suspending": "held",
    "paused": "held",
    "parked": "held",
}


def tone(state: str) -> str:
    """The colour of a state: good, done, bad, warn, held, or waits."""
    return _TONES.get(state, "waits")


@dataclass(frozen=True, slots=True)
class Query:
    """What a person asked to see. `number` of the page counts from 0."""

    group: str = "live"
    words: str = ""
    sort: str = "age"
    descending: bool = False
    number: int = 0

    def with_words(self, words: str) -> Query:
        return replace(self, words=words, number=0)

    def with_group(self, group: str) -> Query:
        return replace(self, group=group, number=0)

    def sorted_by(self, name: str, descending: bool) -> Query:
        return replace(self, sort=name, descending=descending, number=0)

    def turned(self, step: int) -> Query:
        """Another page; those that do not exist are left out by `select`."""
        return replace(self, number=max(0, self.number + step))


@dataclass(frozen=True, slots=True)
class Shown:
    """One page of what was asked for: its rows, from `first` (of 1) on, of so many in all."""

    rows: list[ProcessInfo]
    first: int
    total: int
    number: int


_KEYS: dict[str, Callable[[ProcessInfo, int], Any]] = {
    "process": lambda p, now: p.process_id,
    "state": lambda p, now: p.state,
    "model": lambda p, now: (p.model, p.name),
    "owner": lambda p, now: (p.tenant_id, p.principal),
    "class": lambda p, now: (-p.service_class, p.nice),
    "tokens": lambda p, now: p.prompt_tokens + p.completion_tokens,
    "progress": lambda p, now: -1.0 if p.progress is None else p.progress,
    "age": lambda p, now: now - p.created_ns,
    "took": lambda p, now: (p.ended_ns or now) - (p.started_ns or p.created_ns),
}
SORTS = tuple(_KEYS)


def select(processes: Sequence[ProcessInfo], query: Query, now_ns: int) -> Shown:
    """A page of them. A page beyond the last is the last."""
    words = query.words.casefold().split()
    found = [p for p in processes if _is_in(p, query.group) and _has(p, words)]
    key = _KEYS.get(query.sort, _KEYS["age"])
    found.sort(key=lambda p: p.process_id)
    found.sort(key=lambda p: key(p, now_ns), reverse=query.descending)
    number = min(query.number, max(0, (len(found) - 1) // PAGE_SIZE))
    first = number * PAGE_SIZE
    return Shown(found[first : first + PAGE_SIZE], first + 1, len(found), number)


def _is_in(process: ProcessInfo, group: str) -> bool:
    return group == "all" or (process.state in ENDED) == (group == "ended")


def _has(process: ProcessInfo, words: list[str]) -> bool:
    if not words:
        return True
    text = " ".join(
        (
            process.process_id,
            process.kind,
            process.state,
            process.model,
            process.name,
            process.principal,
            process.tenant_id,
        )
    ).casefold()
    return all(word in text for word in words)


def short(process_id: str) -> str:
    """The kind and the random end of an id: its middle is time, and much alike."""
    kind, _, rest = process_id.partition("_")
    return f"{kind}_…{rest[-8:]}" if len(rest) > 12 else process_id


@dataclass(frozen=True, slots=True)
class Stay:
    """A time in one state, from `begin_s` after the arrival. Reasons by their time."""

    state: str
    begin_s: float
    length_s: float
    reasons: list[tuple[float, str]]


def stays(story: ProcessStory, now_ns: int) -> list[Stay]:
    """A process's life as its states, one after the other without gaps."""
    begin_ns = story.info.created_ns
    end_ns = story.info.ended_ns or max(now_ns, begin_ns)
    made: list[Stay] = []
    for decided in sorted(story.decisions, key=lambda d: d.at_ns):
        at_s = max(0, decided.at_ns - begin_ns) / NS
        reason = (at_s, decided.reason)
        if made and made[-1].state == decided.state:
            made[-1].reasons.append(reason)
            continue
        if made:
            made[-1] = replace(made[-1], length_s=max(0.0, at_s - made[-1].begin_s))
        made.append(Stay(decided.state, at_s if made else 0.0, 0.0, [reason]))
    if made:
        rest_s = max(0.0, (end_ns - begin_ns) / NS - made[-1].begin_s)
        made[-1] = replace(made[-1], length_s=rest_s)
    return made


def timeline(made: Sequence[Stay], name: Callable[[str], str]) -> str:
    """The life as one bar, and below it each stay with its reasons. `name` translates a state."""
    whole_s = sum(stay.length_s for stay in made)
    bars = "".join(
        f'<i class="{tone(stay.state)}" style="flex-grow:{max(stay.length_s / whole_s, 0.004):.4f}"'
        f' title="{html.escape(name(stay.state))}: {amounts.span(stay.length_s)}"></i>'
        for stay in made
        if whole_s > 0
    )
    items = "".join(
        f'<li><span class="chip {tone(stay.state)}">{html.escape(name(stay.state))}</span>'
        f"<em>{amounts.span(stay.length_s)}</em><ol>{_reasons(stay)}</ol></li>"
        for stay in made
    )
    return f'<div class="life" aria-hidden="true">{bars}</div><ol class="stays">{items}</ol>'


def _reasons(stay: Stay) -> str:
    return "".join(
        f"<li><time>+{amounts.span(at_s)}</time><span>{html.escape(reason)}</span></li>"
        for at_s, reason in stay.reasons
    )
