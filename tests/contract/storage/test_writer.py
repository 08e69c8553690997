"""Group commit: who shares a commit, who hears of what, and what is there afterwards."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, insert, select

from llmos.errors import Conflict, DiskFull, StorageError
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database, open_database
from llmos.storage.home import Home
from llmos.storage.tables import tenants
from llmos.telemetry import faults


def add(name: str) -> Callable[[Connection], str]:
    def fn(connection: Connection) -> str:
        row = {"tenant_id": name, "name": name, "created_ns": 1, "epoch": 1}
        connection.execute(insert(tenants).values(**row))
        return name

    return fn


def names(connection: Connection) -> set[str]:
    return set(connection.execute(select(tenants.c.name)).scalars()) - {"default"}


async def together(
    database: Database, *fns: Callable[[Connection], object]
) -> list[asyncio.Task[object]]:
    """Writes that share a commit: the writer is held back until all of them wait. Ended."""
    entered, gate = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        entered.set()
        gate.wait(10)

    first = asyncio.create_task(database.write(hold))
    await asyncio.to_thread(entered.wait, 10)
    rest = [asyncio.create_task(database.write(fn)) for fn in fns]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.wait([first, *rest])
    await first
    return rest


async def outcomes(database: Database, *fns: Callable[[Connection], object]) -> list[object]:
    """As `together`: results and errors."""
    tasks = await together(database, *fns)
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_writes_that_come_together_share_a_commit(database: Database) -> None:
    commits: list[str] = []

    async def main() -> None:
        found = await outcomes(database, *(add(f"t{n}") for n in range(20)))
        assert found == [f"t{n}" for n in range(20)]

    with faults.installed(commits.append):
        asyncio.run(main())
    assert commits.count("database.group.after_commit") == 2
    assert len(database.write_now(names)) == 20


def test_a_lone_write_does_not_wait(opened: Home) -> None:
    config = StorageConfig(min_free_bytes=0, commit_window_s=0.005, max_group_writes=8)
    database = open_database(opened.db, config)
    waits: list[float] = []
    condition = database._writer._changed
    inner = condition.wait

    def wait(timeout: float | None = None) -> bool:
        if timeout is not None:
            waits.append(timeout)
        return inner(timeout)

    condition.wait = wait  # type: ignore[method-assign]
    for n in range(5):
        database.write_now(add(f"t{n}"))
    assert waits == []
    asyncio.run(outcomes(database, *(add(f"u{n}") for n in range(4))))
    database.write_now(add("alone"))
    assert waits and max(waits) <= 0.005
    waits.clear()
    database.write_now(add("alone again"))
    assert waits == []
    database.close()


def test_a_failure_harms_no_other_of_the_group(database: Database) -> None:
    def half(connection: Connection) -> None:
        add("half")(connection)
        raise Conflict("no")

    def broken(connection: Connection) -> None:
        add("broken")(connection)
        connection.exec_driver_sql("SELECT * FROM nowhere")

    def bug(connection: Connection) -> None:
        add("bug")(connection)
        raise KeyError("a mistake of ours")

    async def main() -> list[object]:
        return await outcomes(database, add("a"), half, add("b"), broken, add("a"), bug, add("c"))

    found = asyncio.run(main())
    kinds = [type(each) for each in found]
    assert kinds == [str, Conflict, str, StorageError, StorageError, KeyError, str]
    assert database.write_now(names) == {"a", "b", "c"}


@pytest.mark.parametrize("point", ["database.group.begun", "database.group.before_commit"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_when_the_commit_fails_all_hear_of_it(database: Database, point: str, number: int) -> None:
    passed: list[str] = []

    def hook(reached: str) -> None:
        passed.append(reached)
        if reached == point and passed.count("database.group.after_commit") == 1:
            raise OSError(number, os.strerror(number))

    with faults.installed(hook):
        found = asyncio.run(outcomes(database, *(add(f"t{n}") for n in range(3))))
    wanted = DiskFull if number == errno.ENOSPC else StorageError
    assert [type(each) for each in found] == [wanted] * 3
    assert database.write_now(names) == set()
    assert database.write_now(add("again")) == "again"


def test_a_database_that_cannot_grow_loses_nothing_and_recovers(database: Database) -> None:
    def much(connection: Connection) -> None:
        for n in range(2000):
            add(f"much {n}" * 20)(connection)

    database.write_now(add("kept"))
    pages = database.write_now(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    database.write_now(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}").all())
    found = asyncio.run(outcomes(database, add("a"), much, add("b")))
    assert isinstance(found[1], DiskFull)
    here = database.write_now(names)
    for name, told in (("a", found[0]), ("b", found[2])):
        assert (name in here) == (told == name)
        assert told == name or isinstance(told, DiskFull)
    assert "kept" in here and not any(name.startswith("much") for name in here)
    database.write_now(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1000000").all())
    assert asyncio.run(outcomes(database, much)) == [None]
    assert len(database.write_now(names)) > 2000


def test_a_connection_on_which_nothing_works_is_opened_again(database: Database) -> None:
    def connection_of(connection: Connection) -> object:
        return connection.connection.driver_connection

    def fail(point: str) -> None:
        if point == "database.group.before_commit":
            raise OSError(errno.EIO, "Input/output error")

    before = database.write_now(connection_of)
    with faults.installed(fail):
        for n in range(3):
            with pytest.raises(StorageError):
                database.write_now(add(f"t{n}"))
    assert database.write_now(connection_of) is not before
    pragma = database.write_now(lambda c: c.exec_driver_sql("PRAGMA synchronous").scalar())
    assert pragma == 2  # as durable as the first one
    assert database.write_now(add("again")) == "again"
    assert database.write_now(names) == {"again"}


def test_a_cancelled_caller_that_has_not_begun_leaves_nothing(database: Database) -> None:
    async def main() -> None:
        entered, gate = threading.Event(), threading.Event()

        def hold(_: Connection) -> None:
            entered.set()
            gate.wait(10)

        first = asyncio.create_task(database.write(hold))
        await asyncio.to_thread(entered.wait, 10)
        second = asyncio.create_task(database.write(add("cancelled")))
        third = asyncio.create_task(database.write(add("stays")))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, third)
        assert second.cancelled()

    asyncio.run(main())
    assert database.write_now(names) == {"stays"}


KILLED = """
import asyncio, os, sys
from pathlib import Path
from llmos.storage.database import open_database
from llmos.telemetry import faults
from tests.contract.storage.test_writer import add
database = open_database(Path(sys.argv[1]))
async def main():
    answered = []
    async def one(n):
        print(await database.write(add(f"t{n}")), flush=True)
    num = 0
    def die(point):
        nonlocal num
        num += point == sys.argv[2]
        if num == 3:
            os.kill(os.getpid(), 9)
    faults.install(die)
    for start in range(0, 1000, 10):
        await asyncio.gather(*(one(n) for n in range(start, start + 10)))
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "point",
    ["database.group.begun", "database.group.before_commit", "database.group.after_commit"],
)
def test_who_was_answered_before_a_kill_is_there(opened: Home, point: str) -> None:
    command = [sys.executable, "-c", KILLED, str(opened.db), point]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    assert done.returncode == -9
    answered = set(done.stdout.split())
    database = open_database(opened.db)
    here = database.write_now(names)
    assert answered <= here
    assert len(here - answered) <= 10  # one group, committed and not answered
    assert (here == answered) or point == "database.group.after_commit"
    database.close()
