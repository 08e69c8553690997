"""What clients asked and what they heard: one line of JSON each, appended, never changed.

Every process writes a file of its own, outside the home under test, with one `write` per line: a
killed process leaves whole lines. Times are CLOCK_MONOTONIC in ns, which all processes share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path

import msgspec


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job as somebody was shown it. `outcome` is a digest of its outputs and its error."""

    job_id: str
    state: str
    tag: str = ""
    epoch: int = 0
    outcome: str = ""
    num_deaths: int = 0
    num_unmet: int = 0
    due_ns: int = 0
    rank: int = 0
    is_told: bool = False
    """Whether it has been told to end, and has not yet."""
    is_child: bool = False


class SeenFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """`digest` is of the bytes when `op` read them, else as the record says."""

    file_id: str
    digest: str = ""
    tag: str = ""


class Asked(msgspec.Struct, frozen=True, tag="ask", omit_defaults=True):
    """`tag` names, once in the storm, what is to be made; `tags` a group, all or none. `keys` are
    of results: those put, or those a job is to have in the end. `now_ns`: of the wall clock."""

    at_ns: int
    who: str
    number: int
    op: str
    tag: str = ""
    tags: list[str] = []
    key: str = ""
    job_id: str = ""
    file_id: str = ""
    keys: list[str] = []
    digest: str = ""
    attempt: int = 0
    epoch: int = 0
    died: bool = False
    state: str = ""
    now_ns: int = 0
    plain: bool = False
    """It names nothing that may be gone: there is no reason to refuse it but want of room."""


class Heard(msgspec.Struct, frozen=True, tag="heard", omit_defaults=True):
    """`how`: ok; no (a typed refusal, by its `code`; nothing was done); unknown (no answer)."""

    at_ns: int
    who: str
    number: int
    how: str
    code: str = ""
    seen: list[Seen] = []
    files: list[SeenFile] = []
    taken: bool = True
    """Whether a report on an attempt was taken."""
    attempt: int = 0


class Mark(msgspec.Struct, frozen=True, tag="mark", omit_defaults=True):
    """What was done to the server: start, ready (with its epoch), kill, cut, fault, healed, calm
    (the last kill is over), end."""

    at_ns: int
    what: str
    detail: str = ""
    epoch: int = 0


Line = Asked | Heard | Mark
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


class Writer:
    """Appends to one file."""

    def __init__(self, path: Path, who: str) -> None:
        self.who = who
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._number = 0

    def ask(self, op: str, **about: object) -> int:
        """Before it is sent. The number to hear it under."""
        self._number += 1
        self._put(Asked(time.monotonic_ns(), self.who, self._number, op, **about))  # type: ignore[arg-type]
        return self._number

    def heard(self, number: int, how: str, **about: object) -> None:
        """At once, when the answer is there."""
        self._put(Heard(time.monotonic_ns(), self.who, number, how, **about))  # type: ignore[arg-type]

    def mark(self, what: str, detail: str = "", epoch: int = 0) -> None:
        self._put(Mark(time.monotonic_ns(), what, detail, epoch))

    def _put(self, line: Line) -> None:
        os.write(self._fd, _encode(line) + b"\n")

    def close(self) -> None:
        os.close(self._fd)


def read(paths: Iterable[Path]) -> list[Line]:
    """All lines of all files, in order of time."""
    lines = [line for path in paths for line in _lines(path)]
    lines.sort(key=attrgetter("at_ns"))
    return lines


def _lines(path: Path) -> Iterator[Line]:
    for raw in path.read_bytes().splitlines(keepends=True):
        if raw.endswith(b"\n"):
            yield _decode(raw)


def tail(path: Path, num_bytes: int) -> list[Line]:
    """The newest lines of a file, for one who goes on after a kill."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - num_bytes))
        if file.tell():
            file.readline()
        return [_decode(raw) for raw in file if raw.endswith(b"\n")]
