"""Downloads that were not finished: kept between pulls, so that the next one goes on from there.

A part is known by its hub, repository, commit and name, so its bytes can only be the beginning of
that very file; whether they are is seen when the whole file is verified. Blocking.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from llmos.storage.disk import drop_volatile

_NAME_CHARS = 32


class Partials:
    """Of one commit. Another pull of the same one, while it is under way, has parts of its own,
    which do not outlive it."""

    def __init__(self, folder: Path, commit: str, own: Path) -> None:
        """`commit` names hub, repository and commit; `own` is where others' parts are kept."""
        self._folder = folder / _digest(commit)
        self._own = own

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While it is entered, nobody else writes these parts. What is left of them stays."""
        fd = None
        while fd is None:  # the one that held it is just removing it
            fd = self._lock()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # not empty: the next pull's
                self._folder.rmdir()
            os.close(fd)

    def _lock(self) -> int | None:
        """The folder, locked: these parts', or where somebody has that, our own. None where it is
        not there any more."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), self._folder.stat()):
                return fd
        except BlockingIOError:
            self._own.mkdir(mode=0o700)
            self._folder = self._own
            return fd
        except FileNotFoundError:
            pass
        os.close(fd)
        return None

    def path(self, name: str) -> Path:
        """Of the file `name`'s part."""
        return self._folder / _digest(name)

    def num_bytes(self, name: str, size_bytes: int | None) -> int:
        """How much of it is there. A part that is longer than the file is none."""
        path = self.path(name)
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            return 0
        if size_bytes is None or found > size_bytes:
            path.unlink()
            return 0
        return found

    def drop(self) -> None:
        """All of them: there is no room, or they are of no use."""
        for path in self._folder.iterdir():
            drop_volatile(path)


def drop_old(folder: Path, keep_s: float) -> None:
    """Parts that nobody has come back for."""
    oldest_s = time.time() - keep_s
    for commit in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            times = [path.stat().st_mtime for path in commit.iterdir()]
            if max(times, default=0.0) < oldest_s:
                drop_volatile(commit)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_NAME_CHARS]
