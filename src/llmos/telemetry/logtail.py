"""The server's own log, read from its file: its end, and what comes after it, through rotations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Self

import msgspec

from llmos.errors import ShuttingDown
from llmos.telemetry.redact import Redactor

TAIL_BYTES = 4 * 1024 * 1024
"""At most so much of a log is looked through for its last lines."""

Entry = dict[str, Any]


class LogTail:
    """A place in a log. `last` is called once; each `more` gives what has come since, which may be
    nothing. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def last(self, num_lines: int) -> list[Entry]:
        """The last lines; the next ones are `more`."""
        lines = _tail(self._file)
        return [parse(line) for line in lines[max(0, len(lines) - num_lines) :]]

    def more(self) -> list[Entry]:
        """Whole lines that have come."""
        found: list[Entry] = []
        is_old = False  # a rotated file gets no more: what is read from now on is all it has
        while True:
            if data := self._file.read(TAIL_BYTES):
                *lines, self._rest = (self._rest + data).split(b"\n")
                found += map(parse, lines)
                if len(data) == TAIL_BYTES:
                    return found
            elif is_old:
                self._file.close()
                self._file = self._path.open("rb")
                self._rest, is_old = b"", False
            elif _is_replaced(self._path, self._file):
                is_old = True
            else:
                return found


class RedactedLog:
    """What `abi.logs.LogSource` wants: the log of this server for others to read.

    `is_over` tells when it stops: whoever follows a log would hold it up.
    """

    def __init__(self, path: Path, redact: Redactor, is_over: Callable[[], bool]) -> None:
        self._path = path
        self._redact = redact
        self._is_over = is_over

    def open(self) -> RedactedTail:
        """Raises OSError."""
        return RedactedTail(LogTail(self._path), self._redact, self._is_over)


class RedactedTail:
    """A `LogTail` without secrets, prompts and answers."""

    def __init__(self, tail: LogTail, redact: Redactor, is_over: Callable[[], bool]) -> None:
        self._tail = tail
        self._redact = redact
        self._is_over = is_over

    def last(self, num_lines: int) -> list[Entry]:
        return [self._redact.value(entry) for entry in self._tail.last(num_lines)]

    def more(self) -> list[Entry]:
        if self._is_over():
            raise ShuttingDown("the server is stopping")
        return [self._redact.value(entry) for entry in self._tail.more()]

    def close(self) -> None:
        self._tail.__exit__()


def entries(
    path: Path, num_lines: int, *, follow: bool, pause: Callable[[], None]
) -> Iterator[Entry]:
    """The last `num_lines`, then with `follow` each new one, until it is interrupted."""
    with LogTail(path) as tail:
        yield from tail.last(num_lines)
        while follow:
            if found := tail.more():
                yield from found
            else:
                pause()


def _tail(file: IO[bytes]) -> list[bytes]:
    """Whole lines at its end; where the next one begins is left as its position."""
    size = file.seek(0, 2)
    file.seek(max(0, size - TAIL_BYTES))
    data = file.read()
    whole, newline, rest = data.rpartition(b"\n")
    file.seek(-len(rest), 1)
    lines = whole.split(b"\n") if newline else []
    return lines[1:] if size > TAIL_BYTES else lines


def _is_replaced(path: Path, file: IO[bytes]) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:  # in between
        return False
    ours = os.fstat(file.fileno())
    return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)


def parse(line: bytes) -> Entry:
    """A line that is no JSON object is shown as the message it is."""
    try:
        found = msgspec.json.decode(line)
    except msgspec.DecodeError:
        found = None
    if isinstance(found, dict):
        return found
    return {"message": line.decode(errors="replace"), "level": "info"}
