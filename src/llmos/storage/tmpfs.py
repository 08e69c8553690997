"""A private folder of a home in the host's memory: it outlives a server's death, not a reboot.

The place is shared with every user of the machine, so nothing there is believed: a folder is used
only if this user made it, nobody else may look into it, and no other server has it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import stat
import time
from pathlib import Path

from llmos.errors import StorageError
from llmos.storage.disk import drop_volatile

log = logging.getLogger("llmos.storage")

SHARED = Path("/dev/shm")  # noqa: S108  what is found there is checked
MOUNTS = Path("/proc/self/mountinfo")
_PREFIX = "llmos"
_HASH_CHARS = 16
_ATTEMPTS = 10
_PAUSE_S = 0.01


class MemoryFolder:
    """An open one, locked. `close` removes it; after a sudden end the next server does."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd: int | None = lock_fd

    def close(self) -> None:
        """Remove the folder, then the lock. Idempotent."""
        if self._lock_fd is not None:
            drop_volatile(self.path)
            os.close(self._lock_fd)
            self._lock_fd = None


def find_memory_folder(home: Path) -> MemoryFolder | None:
    """The folder of this home, made if need be. None, with a line in the log, where there is no
    such memory, or where what is there is not ours alone."""
    try:
        _check_shared(SHARED)
        _remove_dead(f"{_PREFIX}-{os.geteuid()}-")
        path = SHARED / _name(home)
        return MemoryFolder(path, _locked(path))
    except (OSError, StorageError) as error:
        log.warning("no snapshots are kept in memory: %s", error)
        return None


def _name(home: Path) -> str:
    digest = hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()
    return f"{_PREFIX}-{os.geteuid()}-{digest[:_HASH_CHARS]}"


def _remove_dead(prefix: str) -> None:
    """Memory that servers of this user left when they were killed, whichever home they had."""
    for entry in list(os.scandir(SHARED)):
        if entry.name.startswith(prefix):
            path = Path(entry.path)
            with contextlib.suppress(OSError, StorageError):  # it lives, or is not ours
                MemoryFolder(path, _lock(path)).close()


def _check_shared(folder: Path) -> None:
    """Nobody but its owner and root can replace what we make in it, and it is in memory."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        raise StorageError(f"{folder} is not a folder of the system")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise StorageError(f"others may remove what is in {folder}")
    if not _is_tmpfs(status.st_dev):
        raise StorageError(f"{folder} is not in memory")


def _is_tmpfs(device: int) -> bool:
    """By proc(5): `36 35 98:0 /root /mount options - type source options`."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in MOUNTS.read_text("utf-8", "replace").splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ")[2:3] == [number]:
            return after.split(" ")[0] == "tmpfs"
    return False


def _locked(path: Path) -> int:
    """Make or open the folder, and lock it. The lock's descriptor.

    Another server that begins may look for a moment whether it is a dead one's, or remove it.
    """
    error: Exception = StorageError(f"{path} is removed as often as it is made")
    for attempt in range(_ATTEMPTS):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        try:
            return _lock(path)
        except FileNotFoundError:
            continue
        except StorageError as busy:
            error = busy
        time.sleep(attempt * _PAUSE_S)
    raise error


def _lock(path: Path) -> int:
    """Raises OSError, FileNotFoundError if it is gone, StorageError if it is not ours alone."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise StorageError(f"{path} is not a private folder of this user")
        # another container may share this memory and have a home of the same name
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(status, path.lstat()):
            raise FileNotFoundError(errno.ENOENT, "removed meanwhile", str(path))
    except BaseException as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise StorageError(f"{path} is in use by another server") from None
        raise
    return fd
