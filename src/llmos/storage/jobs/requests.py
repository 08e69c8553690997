"""The record of inferences, behind their answers: a bounded buffer and one write per window."""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Connection, select, text

from llmos.abi.requests import RequestFilter, RequestRow
from llmos.errors import LLMOSError
from llmos.storage.behind import WriteBehind
from llmos.storage.config import StorageConfig
from llmos.storage.jobs.rows import plain
from llmos.storage.jobs.store import Transactions
from llmos.storage.tables import requests
from llmos.telemetry.faults import reached

log = logging.getLogger(__name__)
MAX_PAGE = 1000
MAX_BATCH = 2000
"""Most rows in one transaction."""
WARN_EVERY_S = 60.0

_FIELDS = RequestRow.__struct_fields__
_LONGEST = {"model": 240, "route": 32, "outcome": 32, "error_code": 64}
# one statement for both databases; a row that was written although its commit seemed to fail stays
_INSERT = text(
    f"INSERT INTO requests ({', '.join(_FIELDS)}) "  # noqa: S608  names of our own fields
    f"VALUES ({', '.join(':' + name for name in _FIELDS)}) ON CONFLICT DO NOTHING"
)


class SqlRequestLog:
    """Implements `abi.RequestLog`. Rows younger than `request_window_s` may be lost with the
    server; on a full disk rows wait, and of too many the oldest are dropped (`num_dropped`)."""

    def __init__(
        self,
        database: Transactions,
        config: StorageConfig,
        on_drop: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.num_dropped = 0
        self._database = database
        self._config = config
        self._on_drop = on_drop
        self._rows: deque[RequestRow] = deque()
        self._behind = WriteBehind("request-log", self.flush, config.request_window_s)
        self._warned_s = -WARN_EVERY_S

    def record(self, rows: Sequence[RequestRow]) -> None:
        """See `abi.RequestLog`. Call it on the loop."""
        self._rows.extend(rows)
        self._drop_oldest()
        self._behind.wake()

    async def page(self, query: RequestFilter) -> list[RequestRow]:
        """See `abi.RequestLog`."""
        return await self._database.read(lambda c: _page(c, query))

    async def flush(self) -> bool:
        """Write all there is; False if the database would not, and the rows wait."""
        while self._rows:
            batch = [self._rows.popleft() for _ in range(min(len(self._rows), MAX_BATCH))]
            try:
                await self._database.write(functools.partial(_insert, rows=batch))
            except LLMOSError as error:
                self._rows.extendleft(reversed(batch))
                self._drop_oldest()
                self._warn(error)
                return False
        return True

    async def close(self) -> None:
        """Write what is left, if that is possible. Idempotent."""
        await self._behind.close()

    def _drop_oldest(self) -> None:
        num = len(self._rows) - self._config.max_request_rows
        if num <= 0:
            return
        for _ in range(num):
            self._rows.popleft()
        self.num_dropped += num
        self._on_drop(num)

    def _warn(self, error: LLMOSError) -> None:
        now_s = time.monotonic()
        if now_s - self._warned_s >= WARN_EVERY_S:
            self._warned_s = now_s
            log.warning(
                "records of requests cannot be written (%s); %d dropped", error, self.num_dropped
            )


def _insert(connection: Connection, rows: Sequence[RequestRow]) -> None:
    connection.execute(_INSERT, [_values(row) for row in rows])
    reached("requests.flush.written")


def _values(row: RequestRow) -> dict[str, object]:
    values = msgspec.structs.asdict(row)
    for name, longest in _LONGEST.items():
        if values[name] is not None:
            values[name] = plain(values[name])[:longest]
    return values


def _page(connection: Connection, query: RequestFilter) -> list[RequestRow]:
    newest = requests.c.request_id.desc()
    wanted = select(*(requests.c[name] for name in _FIELDS)).order_by(newest)
    if query.tenant_id is not None:
        wanted = wanted.where(requests.c.tenant_id == query.tenant_id)
    if query.after is not None:
        wanted = wanted.where(requests.c.request_id < query.after)
    limit = min(max(query.limit, 0), MAX_PAGE)
    return [RequestRow(**row._mapping) for row in connection.execute(wanted.limit(limit))]
