"""The server's own log on a terminal: a file of the home, or asked for where that is elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
LEVELS = ("debug", "info", "warning", "error", "critical")
_OWN = ("time", "level", "logger", "message", "exception")


def find_log() -> Path | None:
    """Of the home in force; None: the server is on another machine. Raises NotFound: it never
    ran."""
    from llmos.errors import NotFound
    from llmos.sdk.locate import locate

    endpoint = locate()
    if endpoint.home is None:
        return None
    path = endpoint.home / "logs" / "llmos.log"
    if not path.exists():
        raise NotFound(f"no server has run for {endpoint.home} yet: there is no {path}")
    return path


def entries(num_lines: int, level: str, *, follow: bool) -> Iterator[Entry]:
    """The last `num_lines`, then with `follow` each new one, until it is interrupted; of those
    the ones that are as severe as `level`."""
    path = find_log()
    found = _asked(num_lines, follow=follow) if path is None else _read(path, num_lines, follow)
    yield from (entry for entry in found if is_at_least(entry, level))


def _read(
    path: Path, num_lines: int, follow: bool, pause: Callable[[], None] | None = None
) -> Iterator[Entry]:
    from llmos.telemetry import logtail

    yield from logtail.entries(path, num_lines, follow=follow, pause=pause or _pause)


def _asked(num_lines: int, *, follow: bool) -> Iterator[Entry]:
    """Of a server elsewhere, as it hands it out: without secrets and texts of people."""
    from llmos.cli.session import connect

    with connect() as client:
        if follow:
            with client.follow_logs(num_lines) as stream:
                yield from stream
        else:
            yield from client.logs(num_lines)


def _pause() -> None:
    from llmos.cli.config import LIMITS

    time.sleep(LIMITS.follow_interval_s)


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
