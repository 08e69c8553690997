"""What the page Processes shows: which processes, in which order, and the story of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmos.abi.syscall import ProcessInfo

PAGE_SIZE = 50
ENDED = frozenset({"finished", "failed", "aborted", "succeeded", "cancelled", "dead"})
GROUPS = ("live", "ended", "all")


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
