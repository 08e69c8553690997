"""The record of inferences."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from llmos.abi.ids import new_id
from llmos.abi.requests import RequestFilter, RequestRow
from llmos.storage.jobs import SqlRequestLog
from llmos.telemetry import faults
from tests.contract.jobstore.world import NOW, World

Run = Callable[..., None]


def row(tenant_id: str = "ten_a", **fields: object) -> RequestRow:
    made = RequestRow(
        request_id=new_id("req"),
        tenant_id=tenant_id,
        principal_id="prn",
        model="模型:1",
        route="chat",
        service_class=2,
        prompt_tokens=7,
        completion_tokens=2**40,
        cached_tokens=0,
        created_ns=NOW,
        ended_ns=NOW + 1,
        outcome="stop",
        epoch=1,
    )
    return msgspec.structs.replace(made, **fields)


def test_rows_are_written_behind_and_read_back_newest_first(run: Run) -> None:
    async def scenario(w: World) -> None:
        log = SqlRequestLog(w.store.database, w.config)
        rows = [row("ten_b" if n % 3 == 0 else "ten_a", created_ns=NOW + n) for n in range(9)]
        log.record(rows[:4])
        log.record(rows[4:])
        assert await log.page(RequestFilter()) == []
        await log.close()
        rows.sort(key=lambda each: each.request_id, reverse=True)
        assert await log.page(RequestFilter()) == rows
        first = await log.page(RequestFilter(limit=4))
        assert first == rows[:4]
        assert await log.page(RequestFilter(after=first[-1].request_id)) == rows[4:]
        mine = [each for each in rows if each.tenant_id == "ten_b"]
        assert await log.page(RequestFilter(tenant_id="ten_b")) == mine

    run(scenario, request_window_s=600)


def test_the_window_ends_by_itself(run: Run) -> None:
    async def scenario(w: World) -> None:
        log = SqlRequestLog(w.store.database, w.config)
        written = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hook(point: str) -> None:
            if point == "requests.flush.written":
                loop.call_soon_threadsafe(written.set)

        with faults.installed(hook):
            log.record([row(outcome="failed", error_code="worker_lost" * 9, model="x\0" * 200)])
            await asyncio.wait_for(written.wait(), 10)
        await log.close()
        (kept,) = await log.page(RequestFilter())
        assert (kept.outcome, len(kept.model), len(kept.error_code or "")) == ("failed", 240, 64)

    run(scenario, request_window_s=0.01)


def test_a_full_disk_drops_the_oldest_and_counts_them(run: Run) -> None:
    async def scenario(w: World) -> None:
        dropped: list[int] = []
        log = SqlRequestLog(w.store.database, w.config, dropped.append)
        rows = [row() for _ in range(12)]

        def full(point: str) -> None:
            if point == "requests.flush.written":
                raise OSError(28, "No space left on device")

        with faults.installed(full):
            log.record(rows[:5])
            assert not await log.flush()
            log.record(rows[5:])
            assert not await log.flush()
        assert (log.num_dropped, sum(dropped)) == (4, 4)
        assert await log.flush()
        kept = {each.request_id for each in await log.page(RequestFilter())}
        assert kept == {each.request_id for each in rows[4:]}
        await log.close()

    run(scenario, max_request_rows=8)
