"""Who follows a job hears of news, and of the server's end."""

from __future__ import annotations

import asyncio

from llmos.kernel.jobs.hub import Hub


def test_followers_are_woken_by_news_and_by_the_end() -> None:
    async def scene() -> None:
        hub = Hub()
        with hub.follow("a") as first, hub.follow("b") as second:
            waits = [asyncio.ensure_future(f.wait(60)) for f in (first, second)]
            await asyncio.sleep(0)
            hub.tell("a")
            await asyncio.wait_for(waits[0], 5)
            assert not waits[1].done()
            hub.close()
            await asyncio.wait_for(waits[1], 5)
            assert hub.is_closed
        assert hub.num_followers == 0

    asyncio.run(scene())


def test_followers_are_counted_by_tenant_while_they_follow() -> None:
    async def scene() -> None:
        hub = Hub()
        with hub.follow("a", "ten_1"), hub.follow("a", "ten_1"), hub.follow("b", "ten_2"):
            assert hub.num_of_tenant == {"ten_1": 2, "ten_2": 1}
        assert not hub.num_of_tenant

    asyncio.run(scene())
