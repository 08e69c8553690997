"""Checks of a home and of the machine under it: what is wrong, in words, without a server."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LEAST_FREE_BYTES = 2 * 1024**3
LEAST_FILES = 1024
LEAST_MEMORY_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Check:
    """`state` is ok, warning, failed or skipped; `told` says what was seen, or why."""

    name: str
    state: str
    told: str


def checks(home: Path) -> list[Check]:
    """All of them; none raises."""
    found = []
    for name, look in _CHECKS.items():
        try:
            state, told = look(home)
        except OSError as error:
            state, told = "failed", f"cannot be looked at: {error.strerror or error}"
        found.append(Check(name, state, told))
    return found


Seen = tuple[str, str]


def _home(home: Path) -> Seen:
    if not home.is_dir():
        return "skipped", f"there is no {home}: no server has run for it"
    if home.stat().st_uid != os.geteuid():
        return "failed", "it belongs to another user"
    if stat.S_IMODE(home.stat().st_mode) & 0o077:
        return "warning", "other users may look into it: chmod 700"
    if not os.access(home, os.W_OK | os.X_OK):
        return "failed", "it cannot be written"
    return "ok", str(home)


def _format(home: Path) -> Seen:
    from llmos.storage.home import FORMAT

    path = home / "format"
    if not path.exists():
        return "skipped", "no stamp"
    found = path.read_text("utf-8").strip()
    if not found.isdecimal():
        return "failed", f"the stamp is {found[:40]!r}"
    if int(found) > FORMAT:
        return "failed", f"layout {found} is of a newer release, this one writes {FORMAT}"
    return "ok", f"layout {found}"


def _token(home: Path) -> Seen:
    path = home / "token"
    if not path.exists():
        return "skipped", "no token"
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return "failed", f"other users may read it (mode {mode:o}): chmod 600, and change it"
    return "ok", "private"


def _disk(home: Path) -> Seen:
    place = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(place).free
    state = "ok" if free >= LEAST_FREE_BYTES else "warning"
    return state, f"{free / 1e9:.1f} GB free"


def _database(home: Path) -> Seen:
    import sqlite3

    path = home / "db" / "llmos.db"
    if not path.exists():
        return "skipped", "no database"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        try:
            (told,) = database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            return "failed", f"{path.name}: {error}"
    return ("ok" if told == "ok" else "failed"), f"{path.name}: {told}"


def _server(home: Path) -> Seen:
    from llmos.cli.background import answers, is_alive
    from llmos.sdk.locate import find_server_file

    server = find_server_file(home)
    if server is None:
        return "skipped", "no server runs"
    if answers(home):
        return "ok", f"pid {server.pid} answers at {server.url}"
    if is_alive(server.pid):
        return "failed", f"pid {server.pid} is there and does not answer"
    return "warning", f"pid {server.pid} is gone and has not cleaned up: it was killed"


def _files(_: Path) -> Seen:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ("ok" if soft >= LEAST_FILES else "warning"), f"{soft} open files, {hard} at most"


def _memory(_: Path) -> Seen:
    from llmos.cluster.memory import measure

    found = measure()
    if found.available_bytes is None:
        return "warning", "how much is available is unknown"
    state = "ok" if found.available_bytes >= LEAST_MEMORY_BYTES else "warning"
    free, total = found.available_bytes / 1e9, found.total_bytes / 1e9
    return state, f"{free:.1f} of {total:.1f} GB available"


def _settings(_: Path) -> Seen:
    import llmos.settings
    from llmos.errors import ConfigError

    try:
        llmos.settings.load({})
    except ConfigError as error:
        return "failed", error.message
    return "ok", "they can be read"


_CHECKS: dict[str, Callable[[Path], Seen]] = {
    "home": _home,
    "layout": _format,
    "token": _token,
    "settings": _settings,
    "database": _database,
    "server": _server,
    "disk": _disk,
    "memory": _memory,
    "open files": _files,
}
