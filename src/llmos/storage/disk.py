"""Small file-system steps done the durable way, and what its errors mean."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from llmos.errors import DiskFull, StorageError

T = TypeVar("T")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turns an OSError into DiskFull or StorageError; `what` was being done."""
    try:
        yield
    except OSError as error:
        cls = DiskFull if error.errno in FULL else StorageError
        raise cls(f"{what}: {error.strerror or error}") from error


async def finished(work: Coroutine[Any, Any, T], on_cancel: Callable[[], None] = lambda: None) -> T:
    """Await `work`; a cancelled caller still waits for its end, since it cleans up next.

    `on_cancel` may tell the work to hurry.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        on_cancel()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # retrieved: the caller has left
        raise


async def whole(
    fn: Callable[..., T], *args: Any, on_cancel: Callable[[], None] = lambda: None
) -> T:
    """`finished` for a function that runs in a thread."""
    return await finished(asyncio.to_thread(fn, *args), on_cancel)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable: a rename is, only once its folder is synced."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def folder_bytes(folder: Path) -> int:
    """Of the files right in a folder; what is gone meanwhile counts as nothing. Raises OSError."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def write_atomic(path: Path, data: bytes, mode: int) -> None:
    """The whole file or none of it, durable, with `mode` from its first moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def drop_volatile(path: Path) -> None:
    """Remove what lies in a folder that every start empties: what cannot go now goes then, and a
    broken disk hides no other error."""
    with contextlib.suppress(OSError):
        remove_tree(path)


def remove_tree(path: Path) -> None:
    """Remove a file or folder, read-only folders included. Nothing there is no error."""

    def retry(function: Callable[..., object], name: str, _: object) -> None:
        if not os.path.lexists(name):
            return
        Path(name).parent.chmod(0o700)
        if not Path(name).is_symlink() and Path(name).is_dir():
            Path(name).chmod(0o700)
            shutil.rmtree(name, ignore_errors=True)
        else:
            function(name)

    if path.is_dir() and not path.is_symlink():
        path.chmod(0o700)
        shutil.rmtree(path, onerror=retry)
    else:
        path.unlink(missing_ok=True)
