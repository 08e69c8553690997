"""The server's own log on a terminal: its end, and what comes after it, through rotations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

LEVELS = ("debug", "info", "warning", "error", "critical")
TAIL_BYTES = 4 * 1024 * 1024
"""At most so much of a log is looked through for its last lines."""
_OWN = ("time", "level", "logger", "message", "exception")

Entry = dict[str, Any]


def log_path() -> Path:
    """Of the home in force. Raises NotFound: the server is on another machine, or never ran."""
    from llmos.errors import NotFound
    from llmos.sdk.locate import locate

    endpoint = locate()
    if endpoint.home is None:
        raise NotFound(
            f"the log of {endpoint.where} is on its own machine; "
            "`llmos logs ID` shows the decisions about one process"
        )
    path = endpoint.home / "logs" / "llmos.log"
    if not path.exists():
        raise NotFound(f"no server has run for {endpoint.home} yet: there is no {path}")
    return path


def entries(
    path: Path, num_lines: int, *, follow: bool, pause: Callable[[], None] | None = None
) -> Iterator[Entry]:
    """The last `num_lines`, then with `follow` each new one, until it is interrupted."""
    with path.open("rb") as file:
        lines = _tail(file)
        yield from map(parse, lines[len(lines) - num_lines :] if num_lines else [])
        if follow:
            yield from map(parse, _new_lines(path, file, pause or _pause))


def _tail(file: IO[bytes]) -> list[bytes]:
    """Whole lines at its end; where the next one begins is left as its position."""
    size = file.seek(0, 2)
    file.seek(max(0, size - TAIL_BYTES))
    data = file.read()
    whole, newline, rest = data.rpartition(b"\n")
    file.seek(-len(rest), 1)
    lines = whole.split(b"\n") if newline else []
    return lines[1:] if size > TAIL_BYTES else lines


def _new_lines(path: Path, file: IO[bytes], pause: Callable[[], None]) -> Iterator[bytes]:
    rest = b""
    while True:
        if data := file.read():
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
        elif _is_replaced(path, file):  # it was rotated: what it still had is read
            with path.open("rb") as fresh:
                yield from _new_lines(path, fresh, pause)
        else:
            pause()


def _is_replaced(path: Path, file: IO[bytes]) -> bool:
    import os

    try:
        there = path.stat()
    except FileNotFoundError:  # in between
        return False
    ours = os.fstat(file.fileno())
    return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)


def _pause() -> None:
    from llmos.cli.config import LIMITS

    time.sleep(LIMITS.follow_interval_s)


def parse(line: bytes) -> Entry:
    """A line that is no JSON object is shown as the message it is."""
    import msgspec

    try:
        found = msgspec.json.decode(line)
    except msgspec.DecodeError:
        found = None
    if isinstance(found, dict):
        return found
    return {"message": line.decode(errors="replace"), "level": "info"}


def is_at_least(entry: Entry, level: str) -> bool:
    """Whether it is as severe; one of an unknown level is."""
    given = str(entry.get("level"))
    return given not in LEVELS or LEVELS.index(given) >= LEVELS.index(level)


def text_of(entry: Entry) -> str:
    """One line, and the lines of an exception below it."""
    from llmos.cli.text import one_line

    known = (str(entry.get("time", "")), f"{entry.get('level', ''):<7}")
    extras = [f"{key}={value}" for key, value in entry.items() if key not in _OWN]
    words = [*known, f"{entry.get('logger', '')}:", str(entry.get("message", "")), *extras]
    made = one_line("  ".join(words[:2]) + "  " + " ".join(words[2:]))
    if exception := entry.get("exception"):
        made += "\n" + "\n".join(f"    {line}" for line in str(exception).splitlines())
    return made
