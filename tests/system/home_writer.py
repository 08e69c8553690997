"""Everything that is written to a home without a kernel, in a process that dies at a named point:
`python -m tests.system.home_writer FOLDER POINT`. Ends with 3 when the point was never reached."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from llmos.abi.files import FileRecord
from llmos.abi.ids import new_id
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database, open_database
from llmos.storage.files import Files
from llmos.storage.home import Home, open_home
from llmos.storage.housekeeping import HomeKeeper
from llmos.storage.uploads import Uploads
from llmos.telemetry import faults
from llmos.telemetry.metrics import Metrics

CONFIG = StorageConfig(min_free_bytes=0)
NOT_REACHED = 3


class Opened:
    """A home and what boot puts on it."""

    def __init__(self, folder: Path) -> None:
        self.home: Home = open_home(folder)
        self.database: Database = open_database(self.home.db, CONFIG)
        self.blobs = Blobs(self.home, CONFIG)
        self.uploads = Uploads(self.home, self.blobs, CONFIG)
        self.files = Files(self.home, self.database, self.blobs, self.uploads, CONFIG)
        self.keeper = HomeKeeper(
            self.home,
            self.database,
            self.database,
            self.blobs,
            self.uploads,
            metrics=Metrics(),
            config=CONFIG,
        )

    def close(self) -> None:
        self.database.close()
        self.home.close()

    async def add(self, data: bytes) -> FileRecord:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        await self.uploads.write("upl_1", "x", chunks())
        record = FileRecord(new_id("file"), "t", "p", "x", "batch", "", 0, time.time_ns())
        return await self.files.add("upl_1", record)


async def write_everything(opened: Opened, folder: Path, point: str) -> None:
    """The first file is acknowledged in `folder/acknowledged` before death is possible."""
    kept, gone = await opened.add(b"acknowledged"), await opened.add(b"gone")
    await opened.files.remove(gone.file_id)
    (folder / "acknowledged").write_text(kept.file_id)

    def die(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    faults.install(die)
    state = opened.home.scratch / "state"
    state.write_bytes(b"state")
    await opened.files.adopt(str(state))
    await opened.add(b"new")
    await opened.keeper.collect()
    await opened.keeper.back_up(str(folder / "backup"))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    asyncio.run(write_everything(Opened(place / "home"), place, sys.argv[2]))
    os._exit(NOT_REACHED)
