"""Who waits for news of a job: told that there are some, reads them from the store."""

from __future__ import annotations

import asyncio
from collections import Counter


class Hub:
    """A counter per job somebody follows; it grows with every change."""

    def __init__(self) -> None:
        self._news: dict[str, list[asyncio.Event]] = {}
        self.num_of_tenant: Counter[str] = Counter()
        self.is_closed = False

    @property
    def num_followers(self) -> int:
        return sum(map(len, self._news.values()))

    def tell(self, job_id: str) -> None:
        """Its log has grown, or its state has changed."""
        for event in self._news.get(job_id, ()):
            event.set()

    def close(self) -> None:
        """The server stops: who waits is woken, and waits no more."""
        self.is_closed = True
        for job_id in self._news:
            self.tell(job_id)

    def follow(self, job_id: str, tenant_id: str = "") -> Follower:
        """`tenant_id`: who asks."""
        return Follower(self, job_id, tenant_id)

    def add(self, job_id: str, tenant_id: str, event: asyncio.Event) -> None:
        self._news.setdefault(job_id, []).append(event)
        self.num_of_tenant[tenant_id] += 1

    def remove(self, job_id: str, tenant_id: str, event: asyncio.Event) -> None:
        self.num_of_tenant[tenant_id] -= 1
        if not self.num_of_tenant[tenant_id]:
            del self.num_of_tenant[tenant_id]
        events = self._news[job_id]
        events.remove(event)
        if not events:
            del self._news[job_id]


class Follower:
    """`clear`, then read the store, then `wait`: nothing that comes between is missed."""

    def __init__(self, hub: Hub, job_id: str, tenant_id: str) -> None:
        self._hub = hub
        self._job_id = job_id
        self._tenant_id = tenant_id
        self._event = asyncio.Event()

    def __enter__(self) -> Follower:
        self._hub.add(self._job_id, self._tenant_id, self._event)
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.remove(self._job_id, self._tenant_id, self._event)

    def clear(self) -> None:
        """What was told so far is about to be read."""
        self._event.clear()

    async def wait(self, timeout_s: float) -> None:
        """Until there is news, or `timeout_s` have passed: another kernel may have made some."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return
