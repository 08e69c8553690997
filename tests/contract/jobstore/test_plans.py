"""No statement of the store walks a table: what it costs does not grow with what is kept."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from llmos.abi.jobs import Idempotency, JobFilter, JobSpec, JobState, NewEvent, ResultRow, Schedule
from llmos.abi.requests import RequestFilter
from llmos.storage.jobs import SqlRequestLog
from tests.contract.jobstore.conftest import fresh_home
from tests.contract.jobstore.test_requests import row
from tests.contract.jobstore.world import ALICE, NOW, World, after, checkpoint_ref, job, play

SMALL = {"job_counts", "schedules", "boots", "leaders", "alembic_version"}
"""Tables with a few rows."""
PAGED = {"jobs", "requests"}
"""May be walked along an index as far as a page goes."""


async def _everything(w: World) -> None:
    """Every method of the store, most in more ways than one."""
    s = w.store
    file_id = await w.add_file("x")
    top = job(files={"in": file_id})
    bottom, child = job(needs=[top.job_id]), job(parent_id=top.job_id, start_at_ns=after(9))
    await s.add([top, bottom, child], Idempotency("k", "d"))
    await s.add([job()], Idempotency("k", "d"))
    await s.next_due_ns()
    attempt = await w.running(top)
    await s.append(attempt, [NewEvent(NOW, "log", {})])
    await s.note(top.job_id, [NewEvent(NOW, "log", {})])
    await s.events(top.job_id, 1, kinds=["log"])
    await s.put_results(attempt, [ResultRow("output", "k", 0, b"x")])
    await s.result_keys(top.job_id)
    await s.checkpoint(attempt, checkpoint_ref())
    await s.suspend(top.job_id, "x")
    await s.resume(top.job_id, "x")
    await s.renice(top.job_id, 1, None)
    await s.finish(attempt, JobState.SUCCEEDED, "", exports={"output": "o"})
    again = await w.running(bottom)
    await s.requeue(again, 0, "x", died=True, error=None)
    await s.recover()
    await s.cancel(bottom.job_id, "x")
    await s.retry(bottom.job_id, "x")
    await s.cancel(bottom.job_id, "x")
    await s.get(bottom.job_id)
    for query in (
        JobFilter(),
        JobFilter(tenant_id="ten_a", after=top.job_id),
        JobFilter(tenant_id="ten_a", programs=["batch", "infer"]),
        JobFilter(programs=["batch"]),
        JobFilter(states=[JobState.DEAD, JobState.FAILED]),
        JobFilter(parent_id=top.job_id),
    ):
        await s.page(query)
    await s.count()
    await s.add_schedule(Schedule("sch_1", ALICE, "* * * * *", JobSpec("x"), NOW, 0))
    await s.fire_schedules(after(99))
    await s.list_schedules("ten_a")
    await s.remove_schedule("sch_1")
    log = SqlRequestLog(s.database, w.config)
    log.record([row()])
    await log.close()
    await log.page(RequestFilter(tenant_id="ten_a"))
    await s.retain(NOW)
    await s.retain(NOW + 10**18)
    (left,) = await s.add([job()])
    await s.cancel(left.job_id, "x")
    await s.remove(left.job_id)


@pytest.fixture(scope="module")
def statements(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> dict[str, list[str]]:
    """Every statement but the tests' own recount, and SQLite's plan for it without statistics."""
    seen: dict[str, Any] = {}

    def see(_c: object, _cursor: object, text: str, values: Any, *_: object) -> None:
        seen.setdefault(text, values)

    home = fresh_home(tmp_path_factory.mktemp("plans") / "home", migrated)
    event.listen(Engine, "before_cursor_execute", see)
    try:
        play(lambda: World(home, ""), _everything)
    finally:
        event.remove(Engine, "before_cursor_execute", see)
    raw = sqlite3.connect(home / "db" / "llmos.db")
    plans = {}
    for text, values in seen.items():
        if text.split()[0] in ("SELECT", "UPDATE", "DELETE") and "GROUP BY jobs" not in text:
            first = values[0] if isinstance(values, list) else values
            plan = raw.execute(f"EXPLAIN QUERY PLAN {text}", first)
            plans[text] = [line[3] for line in plan]
    raw.close()
    return plans


def test_nothing_is_walked(statements: dict[str, list[str]]) -> None:
    assert len(statements) > 50
    for text, plan in statements.items():
        for step in plan:
            walked = re.match(r"SCAN (\w+)", step)
            if walked is None or walked[1] in SMALL:
                continue
            along = "USING INDEX" in step or "USING COVERING INDEX" in step
            assert walked[1] in PAGED and along and "LIMIT" in text, f"{text}\n{plan}"


def test_jobs_are_sought_by_their_state_only_for_pages(statements: dict[str, list[str]]) -> None:
    found = [text for text, plan in statements.items() if "ix_jobs_state" in " ".join(plan)]
    assert found and all("LIMIT" in text for text in found)


def test_a_claim_needs_no_sorting(statements: dict[str, list[str]]) -> None:
    orders = ("ORDER BY jobs.rank", "ORDER BY jobs.created_ns", "ORDER BY jobs.due_ns")
    claims = [t for t in statements if any(order in t for order in orders)]
    assert len(claims) == 3
    for text in claims:
        assert "TEMP B-TREE" not in " ".join(statements[text]), text


def test_whose_turn_it_is_is_sought(statements: dict[str, list[str]]) -> None:
    """By the class and the tenant, not among all that is ready: of that there may be a million."""
    (following,) = [plan for text, plan in statements.items() if "ORDER BY jobs.rank" in text]
    assert "queue=? AND (rank,tenant_id)>(?,?)" in " ".join(following), following
    (oldest,) = [plan for text, plan in statements.items() if "ORDER BY jobs.created_ns" in text]
    assert "queue=? AND rank=? AND tenant_id=?" in " ".join(oldest), oldest
