"""What models take, kept in memory and written behind. Implements `abi.FootprintLog`."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from llmos.abi.footprint import Footprint, FootprintKey
from llmos.errors import LLMOSError
from llmos.storage.behind import WriteBehind
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database
from llmos.storage.tables import footprints
from llmos.telemetry.faults import reached

log = logging.getLogger("llmos.storage")

RETRY_S = 5.0
"""After a write that failed. What is learned meanwhile waits with it."""
MAX_CHARS = 240
MAX_INTEGER = (1 << 63) - 1

_KEY = FootprintKey.__struct_fields__
_VALUES = [name for name in Footprint.__struct_fields__ if name != "key"]


class SqlFootprintLog:
    """On one loop. `known`: what the database has."""

    def __init__(
        self, database: Database, config: StorageConfig, known: Sequence[Footprint] = ()
    ) -> None:
        self._database = database
        self._config = config
        self._known = {footprint.key: footprint for footprint in known}
        self._unwritten: dict[FootprintKey, Footprint] = {}
        self._behind = WriteBehind("footprint-log", self.flush, retry_s=RETRY_S)

    def all(self) -> list[Footprint]:
        """See `abi.FootprintLog`."""
        return list(self._known.values())

    def learn(self, footprint: Footprint) -> None:
        """See `abi.FootprintLog`. Call it on the loop."""
        if (problem := _problem(footprint)) is not None:
            log.warning("what %s takes is not kept: %s", footprint.key, problem)
            return
        self._known[footprint.key] = self._unwritten[footprint.key] = footprint
        while len(self._known) > self._config.max_footprints:
            oldest = min(self._known.values(), key=lambda known: known.measured_ns)
            del self._known[oldest.key]
            self._unwritten.pop(oldest.key, None)
        self._behind.wake()

    async def flush(self) -> bool:
        """Write all there is; False if the database would not, and it waits."""
        batch = self._unwritten
        if not batch:
            return True
        self._unwritten = {}
        max_rows = self._config.max_footprints
        try:
            rows = list(batch.values())
            await self._database.write(functools.partial(_write, rows=rows, max_rows=max_rows))
        except LLMOSError as error:
            log.warning("what models take cannot be written: %s", error)
            older = {key: row for key, row in batch.items() if key in self._known}
            self._unwritten = older | self._unwritten
            return False
        return True

    async def close(self) -> None:
        """Write what is left, if that is possible. Idempotent."""
        await self._behind.close()


async def open_footprints(database: Database, config: StorageConfig) -> SqlFootprintLog:
    """With all that was learned before. Raises StorageError."""
    known = await database.read(functools.partial(_newest, num=config.max_footprints))
    return SqlFootprintLog(database, config, known)


def _problem(footprint: Footprint) -> str | None:
    """Why a row cannot hold it: no error of one may keep the others from being written."""
    values = [*asdict(footprint.key).values(), *(getattr(footprint, name) for name in _VALUES)]
    for value in values:
        match value:
            case str() if len(value) > MAX_CHARS or not value.isprintable():
                return f"{value[:80]!r} is no name"
            case int() | float() if not (math.isfinite(value) and 0 <= value <= MAX_INTEGER):
                return f"{value} is no amount"
    return None


def _write(connection: Connection, rows: Sequence[Footprint], max_rows: int) -> None:
    """The newest of a key stays, and of all the newest `max_rows`."""
    statement = upsert(footprints)
    statement = statement.on_conflict_do_update(
        index_elements=list(_KEY), set_={name: statement.excluded[name] for name in _VALUES}
    )
    connection.execute(statement, [_row(footprint) for footprint in rows])
    keep = select(footprints.c.measured_ns).order_by(footprints.c.measured_ns.desc())
    oldest_kept = connection.execute(keep.offset(max_rows - 1).limit(1)).scalar()
    if oldest_kept is not None:
        connection.execute(delete(footprints).where(footprints.c.measured_ns < oldest_kept))
    reached("footprints.flush.written")


def _row(footprint: Footprint) -> dict[str, Any]:
    return asdict(footprint.key) | {name: getattr(footprint, name) for name in _VALUES}


def _newest(connection: Connection, num: int) -> list[Footprint]:
    rows = select(footprints).order_by(footprints.c.measured_ns.desc()).limit(num)
    return [
        Footprint(
            key=FootprintKey(**{name: row[name] for name in _KEY}),
            **{name: row[name] for name in _VALUES},
        )
        for row in connection.execute(rows).mappings()
    ]
