"""A streamed completion read event by event: its tokens, when they came, how it ended.

Reading can end early, when the server goes, and go on later with `Last-Event-ID`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

ROUTE = "/v1/completions"
BROKEN = "shutting_down"
"""The code of a server that stops: a reader comes back to the next one."""


@dataclass
class Streamed:
    """One request. `token_ns`: UTC, as the server's own times. `end`: the last `llmos` object.

    `num_comments` counts the lines that only keep the connection open. `error` is why it failed.
    """

    body: dict[str, Any]
    request_id: str = ""
    token_ids: list[int] = field(default_factory=list)
    token_ns: list[int] = field(default_factory=list)
    sent_ns: int = 0
    last_id: str = ""
    num_comments: int = 0
    end: dict[str, Any] | None = None
    end_ns: int = 0
    error: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        return self.end is not None or bool(self.error)

    async def read(self, client: httpx.AsyncClient) -> None:
        """To the end, or until the server goes: then `is_over` is false."""
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        self.sent_ns = self.sent_ns or time.time_ns()
        try:
            async with client.stream("POST", ROUTE, json=self.body, headers=headers) as answer:
                if answer.status_code != 200:
                    self.error = f"{answer.status_code}: {(await answer.aread()).decode()[:300]}"
                    return
                self.request_id = answer.headers["x-request-id"]
                async for line in answer.aiter_lines():
                    self.take(line)
        except httpx.TransportError:
            return  # the server has gone: the caller knows whether it should have
        finally:
            self.changed.set()

    def take(self, line: str) -> None:
        """One line of the event stream."""
        if line.startswith("data: {"):
            self._event(msgspec.json.decode(line[6:]), time.time_ns())
        elif line.startswith("id: "):
            self._next_id = line[4:]
        elif line.startswith(":"):
            self.num_comments += 1
            self.changed.set()

    _next_id: str = ""

    def _event(self, event: dict[str, Any], now_ns: int) -> None:
        if "error" in event:
            if event["error"]["code"] != BROKEN:
                self.error = f"{event['error']['code']}: {event['error']['message']}"
        else:
            self.last_id = self._next_id or self.last_id
            self._next_id = ""
            for choice in event["choices"]:
                ids = choice.get("token_ids", ())
                self.token_ids += ids
                self.token_ns += [now_ns] * len(ids)
            if "llmos" in event:
                self.end, self.end_ns = event["llmos"], now_ns
        self.changed.set()

    async def until_tokens(self, count: int) -> bool:
        """Until it has so many tokens. False: it was over before."""
        while len(self.token_ids) < count and not self.is_over:
            self.changed.clear()
            await self.changed.wait()
        return not self.is_over


async def suspend(client: httpx.AsyncClient, request_id: str) -> bool:
    """Answered when its state is safe. False: it had ended, or was not to be suspended."""
    answer = await client.post(f"/os/v1/processes/{request_id}/suspend")
    return answer.status_code == 200


async def resume(client: httpx.AsyncClient, request_id: str) -> None:
    """It may go on."""
    answer = await client.post(f"/os/v1/processes/{request_id}/resume")
    answer.raise_for_status()


async def read_all(client: httpx.AsyncClient, streams: list[Streamed]) -> None:
    """All at once. Raises RuntimeError when one fails."""
    await asyncio.gather(*(stream.read(client) for stream in streams))
    failed = [s.error or "the stream broke" for s in streams if s.end is None]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(streams)} streams failed: {failed[0]}")
