"""What people thought of answers, on disk."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from llmos.abi.feedback import Feedback, Rating
from llmos.storage.config import StorageConfig
from llmos.storage.database import open_database
from llmos.storage.feedback import SqlFeedbackStore


def _word(
    number: int, rating: Rating = Rating.UP, who: str = "ann", tenant: str = "t1"
) -> Feedback:
    return Feedback(f"req_{number}", tenant, who, "m:1", rating, "", number)


def test_the_last_word_counts_and_outlives_the_server(tmp_path: Path, migrated: Path) -> None:
    shutil.copy(migrated, tmp_path / migrated.name)

    async def write() -> None:
        database = open_database(tmp_path)
        store = SqlFeedbackStore(database, StorageConfig())
        await store.add(_word(1))
        await store.add(_word(1, Rating.DOWN))
        await store.add(_word(1, who="bea"))
        await store.add(_word(2, tenant="t2"))
        database.close()

    async def read() -> tuple[list[Feedback], list[Feedback]]:
        database = open_database(tmp_path)
        store = SqlFeedbackStore(database, StorageConfig())
        found = await store.list(None, 10), await store.list("t1", 1)
        database.close()
        return found

    asyncio.run(write())
    every, mine = asyncio.run(read())
    assert {(f.request_id, f.principal, f.rating) for f in every} == {
        ("req_1", "ann", Rating.DOWN),
        ("req_1", "bea", Rating.UP),
        ("req_2", "ann", Rating.UP),
    }
    assert every[0].request_id == "req_2"
    assert [f.tenant_id for f in mine] == ["t1"]


def test_the_oldest_go_where_there_are_too_many(tmp_path: Path, migrated: Path) -> None:
    shutil.copy(migrated, tmp_path / migrated.name)

    async def run() -> list[str]:
        database = open_database(tmp_path)
        store = SqlFeedbackStore(database, StorageConfig(max_feedback=3))
        for number in range(1, 6):
            await store.add(_word(number))
        found = await store.list(None, 100)
        database.close()
        return [f.request_id for f in found]

    assert asyncio.run(run()) == ["req_5", "req_4", "req_3"]
