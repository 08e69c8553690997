"""LLMOS_HOME: one folder with all state, one server at a time.

lock        flock of the running server, holding its pid
format      version of this layout
token       the admin token, 0600
db/         the database
blobs/      sha256/ab/HEX, content-addressed, read-only
models/     one folder per model version, hard links to blobs
snapshots/  suspended requests, and the records to go on with them from
cache/      one folder per model version: what makes its loads quicker; may be deleted at any time
pulls/      downloads to go on with
uploads/    unfinished uploads       } emptied
scratch/    of workers and pulls     } at open
tracking/   what runs told, for other trackers
logs/ run/
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from llmos.errors import ConfigError, HomeLocked
from llmos.storage.disk import mapped, remove_tree, sync_folder, write_atomic

FORMAT = 1
"""Layout written by this release."""

FOLDERS = (
    *("db", "blobs", "blobs/sha256", "models", "snapshots", "cache", "pulls"),
    *("uploads", "scratch", "logs", "run"),
)
VOLATILE = ("uploads", "scratch")
KNOWN = {folder.split("/")[0] for folder in FOLDERS} | {"lock", "format", "token", "tracking"}

UPGRADES: dict[int, Callable[[Path], None]] = {}
"""From a layout's number: what turns it into the next one. Must be safe to run twice."""

TOKEN_PREFIX = "llmos_"  # noqa: S105  a prefix by which leaked secrets are recognised
_TOKEN = re.compile(r"[\x21-\x7e]{20,512}")


def new_secret() -> str:
    """A secret of 256 random bits, recognisable by its prefix."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


class Home:
    """An open, locked home. `close` releases it; so does the end of the process."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self.token = ""
        self.db = path / "db"
        self.blobs = path / "blobs" / "sha256"
        self.models = path / "models"
        self.snapshots = path / "snapshots"
        self.cache = path / "cache"
        self.pulls = path / "pulls"
        self.uploads = path / "uploads"
        self.scratch = path / "scratch"
        self.logs = path / "logs"
        self.run = path / "run"
        self._lock_fd: int | None = lock_fd

    def close(self) -> None:
        """Release the lock. Idempotent."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


def open_home(path: Path) -> Home:
    """Create or open a home, lock it, bring its layout up to date, clean after dead runs.

    Blocking. Raises HomeLocked naming the pid, ConfigError (not a home, made by a newer release,
    not ours), StorageError.
    """
    path = path.expanduser().absolute()
    with mapped(f"opening {path}"):
        _create(path)
        home = Home(path, _lock(path))
        with contextlib.ExitStack() as undo:
            undo.callback(home.close)
            _bring_up_to_date(path)
            for name in FOLDERS:
                (path / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            home.token = _token(path / "token")
            for name in VOLATILE:
                for leftover in (path / name).iterdir():
                    remove_tree(leftover)
            _sync_names(path)
            undo.pop_all()
    return home


def _sync_names(path: Path) -> None:
    """Every folder made here has its name on disk: what is durable in it must be found again."""
    for folder in sorted({(path / name).parent for name in FOLDERS}):
        sync_folder(folder)
    with contextlib.suppress(PermissionError):  # where we may not read, others made it
        sync_folder(path.parent)


def _create(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.is_dir() or path.stat().st_uid != os.geteuid():
        raise ConfigError(f"{path} is not a folder of this user")
    if not (path / "format").exists():
        foreign = {entry.name for entry in path.iterdir()} - KNOWN
        foreign = {name for name in foreign if not name.startswith((".", "llmos", "server", "api"))}
        if foreign:
            raise ConfigError(
                f"{path} is not an LLMOS home and not empty (found {min(foreign)!r}); "
                "set LLMOS_HOME to a folder of its own"
            )
    path.chmod(0o700)


def _lock(path: Path) -> int:
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise HomeLocked(
            f"{path} is in use by a running server (pid {pid})", details={"pid": pid}
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _bring_up_to_date(path: Path) -> None:
    stamp = path / "format"
    if not stamp.exists():
        write_atomic(stamp, f"{FORMAT}\n".encode(), 0o600)
        return
    text = stamp.read_text(errors="replace").strip()
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f"{stamp} is damaged: {text[:40]!r}")
    found = int(text)
    if found > FORMAT:
        raise ConfigError(
            f"{path} was written by a newer LLMOS (layout {found}, this one knows {FORMAT})"
        )
    while found < FORMAT:
        if found not in UPGRADES:
            raise ConfigError(f"{path} has layout {found}, which this release cannot upgrade")
        UPGRADES[found](path)
        found += 1
        write_atomic(stamp, f"{found}\n".encode(), 0o600)


def _token(path: Path) -> str:
    if not path.exists():
        write_atomic(path, f"{new_secret()}\n".encode(), 0o600)
    path.chmod(0o600)
    token = path.read_text(errors="replace").strip()
    if not _TOKEN.fullmatch(token):
        raise ConfigError(f"{path} holds no usable token; remove it to have a new one made")
    return token
