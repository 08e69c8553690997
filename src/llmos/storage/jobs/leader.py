"""Who leads, where several kernels share a PostgreSQL: whoever holds an advisory lock.

The lock belongs to a connection: it is free the moment that connection is, however its kernel died.
A stand-by asks for it again and again (waiting inside PostgreSQL would hold back its clean-up).
Taking the lead also writes a row (`leaders`), which claims check: a leader whose connection broke,
and who does not know it yet, can claim nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import psycopg
from sqlalchemy.engine import URL

from llmos.errors import LLMOSError
from llmos.storage.jobs.tx import NOTIFY

log = logging.getLogger(__name__)
POLL_S = 0.5
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('llmos.lead.' || current_schema, 0))"
_ALIVE = {
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "connect_timeout": "5",
}
_SERVER_ALIVE = (
    "tcp_keepalives_idle = 5",
    "tcp_keepalives_interval = 2",
    "tcp_keepalives_count = 3",
)


class Leader:
    """Takes the lead as soon as nobody has it, and listens for work while it does.

    `take` is awaited once per taking; `wake` is called whenever another kernel may have made work.
    """

    def __init__(
        self, url: URL, take: Callable[[], Awaitable[None]], wake: Callable[[], None]
    ) -> None:
        self.leads = False
        plain = url.set(drivername="postgresql").update_query_dict(_ALIVE)
        self._url = plain.render_as_string(hide_password=False)
        self._take = take
        self._wake = wake
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return once it leads, or somebody else does."""
        self._task = asyncio.create_task(self._run(), name="leader")
        asked = asyncio.create_task(self._asked.wait())
        await asyncio.wait({self._task, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()

    async def close(self) -> None:
        """Give the lead up. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self.leads = False

    async def _run(self) -> None:
        while True:
            try:
                await self._stand()
            except (psycopg.Error, OSError, LLMOSError) as error:
                log.warning("no lead: %s", error)
            finally:
                self.leads = False
                self._asked.set()
            await asyncio.sleep(POLL_S)

    async def _stand(self) -> None:
        """Wait for the lead, have it, and lose it with the connection."""
        connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        async with connection:
            for setting in _SERVER_ALIVE:
                await connection.execute(f"SET {setting}")
            while not await _locked(connection):
                self._asked.set()
                await asyncio.sleep(POLL_S)
            await connection.execute(f"LISTEN {NOTIFY}")
            await self._take()
            self.leads = True
            self._asked.set()
            self._wake()
            async for _ in connection.notifies():
                self._wake()


async def _locked(connection: psycopg.AsyncConnection) -> bool:
    cursor = await connection.execute(_LOCK)
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
