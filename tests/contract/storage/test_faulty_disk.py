"""What an uploaded file, a checkpoint and a pull's copy do when the disk or the process's limits
say no at any step: a typed error, nothing left, and the same works once the fault has passed."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import DiskFull, StorageError
from llmos.storage.database import Database
from llmos.storage.home import Home
from tests.contract.storage.test_housekeeping import World

FAULTS = {
    errno.ENOSPC: DiskFull,
    errno.EDQUOT: DiskFull,
    errno.EIO: StorageError,
    errno.EMFILE: StorageError,
    errno.EROFS: StorageError,
}
STEPS: dict[str, tuple[Any, str]] = {
    "open": (os, "open"),
    "write": (os, "write"),
    "fsync": (os, "fsync"),
    "chmod": (os, "fchmod"),
    "rename": (Path, "replace"),
    "folder": (Path, "mkdir"),
}


@pytest.fixture
def world(opened: Home, database: Database) -> World:
    return World(opened, database)


async def _upload(world: World) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000

    await world.uploads.write("upl_1", "x", chunks())
    await world.uploads.discard("upl_1")


async def _file(world: World) -> None:
    await world.add_file("文件 🐼".encode())


async def _checkpoint(world: World) -> None:
    path = world.home.scratch / "job" / "state"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"state")
    try:
        world.blobs.settle((await world.files.adopt(str(path))).digest)
    finally:
        path.unlink(missing_ok=True)
        path.parent.rmdir()


async def _copy(world: World) -> None:
    source = world.home.path.with_name("source")
    source.write_bytes(b"weights")

    def copy() -> None:
        with world.blobs.hold() as hold:
            world.blobs.copy(source, hold)

    await asyncio.to_thread(copy)


WORKS: dict[str, tuple[Callable[[World], Any], set[str]]] = {
    "upload": (_upload, {"open", "write", "rename", "folder"}),
    "file": (_file, {"open", "write", "fsync", "chmod", "rename", "folder"}),
    "checkpoint": (_checkpoint, {"fsync", "chmod", "rename"}),
    "copy": (_copy, {"open", "fsync", "chmod", "rename"}),
}


@pytest.mark.parametrize("number", FAULTS, ids=errno.errorcode.__getitem__)
@pytest.mark.parametrize(
    ("work", "step"), [(work, step) for work, (_, steps) in WORKS.items() for step in sorted(steps)]
)
def test_a_fault_is_typed_and_passes(
    world: World, monkeypatch: pytest.MonkeyPatch, work: str, step: str, number: int
) -> None:
    run, _ = WORKS[work]
    where, name = STEPS[step]
    real, num_calls = getattr(where, name), 0

    def fail(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_calls
        if name == "open" and not args[1] & os.O_CREAT:
            return real(*args, **kwargs)
        if name == "mkdir" and args[0].parent == world.home.scratch:
            return real(*args, **kwargs)  # the worker's own
        num_calls += 1
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(where, name, fail)
        with pytest.raises(FAULTS[number]) as caught:
            asyncio.run(run(world))
    assert num_calls > 0
    assert type(caught.value) is FAULTS[number]
    asyncio.run(world.uploads.discard("upl_1"))
    left = [path for part in (world.home.scratch, world.home.uploads) for path in part.iterdir()]
    assert left == []
    assert world.blobs.held() == set()
    asyncio.run(world.keeper.collect())
    assert world.blobs.sizes() == {}
    asyncio.run(run(world))
