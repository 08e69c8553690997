"""What people thought of answers: one row for each person and answer. Implements
`abi.FeedbackStore`."""

from __future__ import annotations

import builtins
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.sqlite import insert as upsert

from llmos.abi.feedback import Feedback, Rating
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database
from llmos.storage.tables import feedback

_KEY = ("request_id", "principal")
_VALUES = [name for name in Feedback.__struct_fields__ if name not in _KEY]


class SqlFeedbackStore:
    """Over the home's database."""

    def __init__(self, database: Database, config: StorageConfig) -> None:
        self._database = database
        self._max_rows = config.max_feedback

    async def add(self, given: Feedback) -> None:
        """See `abi.FeedbackStore`. A person's newer word replaces the older one."""

        def store(connection: Connection) -> None:
            statement = upsert(feedback)
            statement = statement.on_conflict_do_update(
                index_elements=list(_KEY),
                set_={name: statement.excluded[name] for name in _VALUES},
            )
            connection.execute(statement, asdict(given) | {"rating": given.rating.value})
            self._prune(connection)

        await self._database.write(store)

    async def list(self, tenant_id: str | None, limit: int) -> builtins.list[Feedback]:
        """See `abi.FeedbackStore`."""
        rows = select(feedback).order_by(feedback.c.created_ns.desc()).limit(limit)
        if tenant_id is not None:
            rows = rows.where(feedback.c.tenant_id == tenant_id)

        def load(connection: Connection) -> builtins.list[Feedback]:
            return [_feedback(row) for row in connection.execute(rows).mappings()]

        return await self._database.read(load)

    def _prune(self, connection: Connection) -> None:
        """The oldest go where there are too many."""
        num = connection.execute(select(func.count()).select_from(feedback)).scalar_one()
        if num <= self._max_rows:
            return
        newest = select(feedback.c.created_ns).order_by(feedback.c.created_ns.desc())
        kept = connection.execute(newest.offset(self._max_rows - 1).limit(1)).scalar_one()
        connection.execute(delete(feedback).where(feedback.c.created_ns < kept))


def _feedback(row: Any) -> Feedback:
    values = {name: row[name] for name in Feedback.__struct_fields__}
    return Feedback(**values | {"rating": Rating(row["rating"])})
