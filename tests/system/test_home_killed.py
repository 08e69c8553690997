"""kill -9 at every named point of what writes to the home: what was acknowledged is there, what
was not is whole or gone, and the next sweep leaves nothing that nobody wants."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmos.abi.files import FileFilter
from llmos.errors import InvalidRequest
from llmos.storage.restore import restore
from llmos.storage.source import BlobReader
from llmos.telemetry.faults import POINTS
from tests.system.home_writer import Opened

AREAS = ("uploads.", "blobs.", "files.", "housekeeping.", "backup.")
WHOLE = "backup.seal.sealed"
UNMARKED = "backup.seal.before_seal"
"""Dead between the two: no backup, and no mark by which the next one may use the folder."""


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith(AREAS)])
def test_killed_at(point: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.system.home_writer", str(tmp_path), point]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    opened = Opened(tmp_path / "home")
    try:
        asyncio.run(_check(opened, tmp_path, point))
    finally:
        opened.close()


async def _check(opened: Opened, folder: Path, point: str) -> None:
    report = await opened.keeper.collect()
    on_record = await opened.files.page(FileFilter())
    assert report.num_missing == 0
    assert set(opened.blobs.sizes()) == {file.digest for file in on_record}
    for part in (opened.home.scratch, opened.home.uploads):
        assert list(part.iterdir()) == []
    ref = await opened.files.blob((folder / "acknowledged").read_text())
    reading = BlobReader(opened.blobs).read(ref)
    assert b"".join([chunk async for chunk in reading]) == b"acknowledged"
    backup = folder / "backup"
    if point != WHOLE:
        with pytest.raises(InvalidRequest):
            restore(backup, folder / "restored")
    if point not in (WHOLE, UNMARKED):
        await opened.keeper.back_up(str(backup))
    if point != UNMARKED:
        assert (await asyncio.to_thread(restore, backup, folder / "restored")).num_files > 1
