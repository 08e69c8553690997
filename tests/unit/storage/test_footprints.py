from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import delete, func, select

from llmos.abi.footprint import Footprint, FootprintKey, FootprintLog
from llmos.errors import StorageError
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database
from llmos.storage.footprints import SqlFootprintLog, open_footprints
from llmos.storage.tables import footprints
from llmos.telemetry import faults

KEY = FootprintKey("mdl_1", "bfloat16", "cuda:0", 4096, 8, "native", "torch 2.9")
ONE = Footprint(KEY, 100, 90, 1.5, measured_ns=10)


def keyed(number: int, measured_ns: int) -> Footprint:
    return replace(ONE, key=replace(KEY, num_slots=number), measured_ns=measured_ns)


def with_log(
    database: Database, act: Callable[[SqlFootprintLog], Awaitable[Any]], max_footprints: int = 1000
) -> Any:
    """Open, act, close."""

    async def main() -> Any:
        config = StorageConfig(max_footprints=max_footprints)
        log = await open_footprints(database, config)
        try:
            return await act(log)
        finally:
            await log.close()

    return asyncio.run(main())


async def read(log: FootprintLog) -> list[Footprint]:
    return sorted(log.all(), key=lambda footprint: footprint.measured_ns)


def num_rows(database: Database) -> int:
    return int(
        database.write_now(lambda c: c.execute(select(func.count(footprints.c.driver))).scalar())
    )


amounts = st.integers(0, (1 << 63) - 1)
names = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=40)
seconds = st.floats(0, 1e9)
learned = st.builds(
    Footprint,
    st.builds(FootprintKey, names, names, names, amounts, amounts, names, names),
    bound_bytes=amounts,
    peak_bytes=amounts,
    load_s=seconds,
    measured_ns=amounts,
    device_bytes=amounts,
    parked_bytes=st.none() | amounts,
    unpark_s=st.none() | seconds,
    num_loads=amounts,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(learned, max_size=5, unique_by=lambda footprint: footprint.measured_ns))
def test_what_was_learned_is_known_after_a_restart(
    database: Database, rows: list[Footprint]
) -> None:
    database.write_now(lambda c: c.execute(delete(footprints)))
    newest = {row.key: row for row in rows}
    expected = sorted(newest.values(), key=lambda row: row.measured_ns)

    async def learn(log: SqlFootprintLog) -> None:
        for row in rows:
            log.learn(row)
        assert await read(log) == expected

    with_log(database, learn)
    assert with_log(database, read) == expected


def test_the_newest_of_a_key_stays(database: Database) -> None:
    async def learn(log: SqlFootprintLog) -> None:
        log.learn(ONE)
        assert await log.flush()
        log.learn(replace(ONE, bound_bytes=7, num_loads=2, parked_bytes=5, unpark_s=0.1))

    with_log(database, learn)
    [found] = with_log(database, read)
    assert (found.bound_bytes, found.num_loads, found.parked_bytes) == (7, 2, 5)


def test_only_so_many_are_kept_the_newest(database: Database) -> None:
    async def learn(log: SqlFootprintLog) -> None:
        for number in range(9):
            log.learn(keyed(number, 100 - number))
        assert [row.measured_ns for row in await read(log)] == [98, 99, 100]

    with_log(database, learn, max_footprints=3)
    assert num_rows(database) == 3

    async def learn_one(log: SqlFootprintLog) -> None:
        log.learn(keyed(99, 200))

    with_log(database, learn_one, max_footprints=2)
    assert [row.measured_ns for row in with_log(database, read)] == [100, 200]


BAD = [
    replace(ONE, load_s=math.nan),
    replace(ONE, unpark_s=math.inf),
    replace(ONE, bound_bytes=1 << 63),
    replace(ONE, peak_bytes=-1),
    replace(ONE, key=replace(KEY, model_id="x" * 241)),
    replace(ONE, key=replace(KEY, engine="\ud800")),
    replace(ONE, key=replace(KEY, num_slots=1 << 70)),
]


@pytest.mark.parametrize("bad", BAD)
def test_what_no_row_can_hold_is_logged_and_keeps_nothing_else_out(
    database: Database, bad: Footprint, caplog: pytest.LogCaptureFixture
) -> None:
    async def learn(log: SqlFootprintLog) -> None:
        log.learn(bad)
        log.learn(keyed(1, 1))

    with_log(database, learn)
    assert "is not kept" in caplog.text
    assert with_log(database, read) == [keyed(1, 1)]


def test_on_a_full_disk_it_waits_and_what_is_newer_wins(database: Database) -> None:
    async def scenario(log: SqlFootprintLog) -> None:
        log.learn(keyed(1, 1))
        log.learn(keyed(2, 2))
        with faults.installed(_full):
            assert not await log.flush()
        log.learn(keyed(2, 3))
        assert await log.flush()
        assert await log.flush()

    with_log(database, scenario)
    assert [row.measured_ns for row in with_log(database, read)] == [1, 3]


def _full(point: str) -> None:
    if point == "footprints.flush.written":
        raise OSError(28, "No space left on device")


def test_it_is_written_behind(database: Database) -> None:
    """Without a flush, while the server goes on."""

    async def scenario(log: SqlFootprintLog) -> None:
        written = asyncio.Event()
        loop = asyncio.get_running_loop()
        with faults.installed(lambda _: loop.call_soon_threadsafe(written.set) and None):
            log.learn(ONE)
            await asyncio.wait_for(written.wait(), 10)

    with_log(database, scenario)
    assert num_rows(database) == 1


def test_a_closed_database_is_no_error_of_whoever_learns(database: Database) -> None:
    async def scenario() -> None:
        log = SqlFootprintLog(database, StorageConfig())
        database.close()
        log.learn(ONE)
        await log.close()
        await log.close()
        assert log.all() == [ONE]
        with pytest.raises(StorageError):
            await open_footprints(database, StorageConfig())

    asyncio.run(scenario())
