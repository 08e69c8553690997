"""The load client: open and closed load over raw sockets, every request streamed, all recorded.

Runs as a process of its own, see `child`. Bytes are made beforehand; a read is two searches.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import sys
import time
from typing import cast

import msgspec

from benchmarks.sched.child import run_child, serve_parent
from benchmarks.sched.records import OK, Record

TOKEN = b'"finish_reason":null'
DONE = b"data: [DONE]"
FAILED = b'data: {"error"'
LAST_CHUNK = b"0\r\n\r\n"
KEPT = 64
"""Bytes kept between reads: more than any of these, so that one cut in two is still found."""
STATUS = re.compile(rb"HTTP/1\.1 (\d+)")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
SPARE_S = 60.0
"""What a run may take beyond its own times before it is given up."""
START_S = 0.5
"""Between the decision to begin and the first arrival: connections are opened then."""


class Group(msgspec.Struct, frozen=True):
    """Requests of one kind, sent in turn. `closed`: so many clients ask again when answered."""

    name: str
    requests: list[bytes]
    due_s: list[float] = []
    closed: int = 0
    prompt_tokens: int = 0


class Plan(msgspec.Struct, frozen=True):
    """Load for `duration_s`; what is open `drain_s` later is cut off."""

    host: str
    port: int
    groups: list[Group]
    duration_s: float
    drain_s: float = 0.0
    connections: int = 64


class Connection(asyncio.Protocol):
    """One keep-alive connection; free, or reading one answer."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.record: Record | None = None
        self._refill: Group | None = None
        self._clear()

    def _clear(self) -> None:
        self._head, self._tail, self._missing, self._broken = b"", b"", 0, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def send(self, request: bytes, record: Record, refill: Group | None) -> None:
        self.record, self._refill = record, refill
        self._clear()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        record = self.record
        if record is None:
            return
        now_s = self._run.now_s()
        if not record.status:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            status = STATUS.match(head)
            record.status = int(status[1]) if status else -1
            if record.status != OK:
                length = LENGTH.search(head)
                self._missing = int(length[1]) if length else 0
        if record.status != OK:
            self._missing -= len(data)
            record.error = (record.error + data.decode(errors="replace"))[:200]
            if self._missing <= 0:
                self._finish(now_s)
            return
        self._stream(record, data, now_s)

    def _stream(self, record: Record, data: bytes, now_s: float) -> None:
        # a mark is counted where it ends: what was whole in the tail has been counted
        seen, text = self._tail.count(TOKEN), self._tail + data
        record.token_s.extend([now_s] * (text.count(TOKEN) - seen))
        self._broken = self._broken or FAILED in text
        self._tail = text[-KEPT:]
        if text.endswith(LAST_CHUNK) and (DONE in text or self._broken):
            self._finish(now_s)

    def _finish(self, now_s: float) -> None:
        record, refill = self.record, self._refill
        assert record is not None
        record.end_s = now_s
        if self._broken:
            record.status = 0
            record.error = self._tail.decode(errors="replace")
        self.record = None
        self._run.free(self)
        if refill is not None and now_s < self._run.plan.duration_s:
            self._run.fire(refill, now_s, refill)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.record is not None:
            self.record.status, self.record.error = 0, f"connection lost: {exc}"
            self.record.end_s = self._run.now_s()
            self._run.num_open -= 1
        self._run.forget(self)

    def close(self) -> None:
        """Whoever is still being answered was not answered in full."""
        if self.record is not None:
            self.record.status = 0
            self.record = None
        self._transport.abort()


class Run:
    """One plan being carried out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.records: list[Record] = []
        self._free: list[Connection] = []
        self._all: list[Connection] = []
        self._num_sent: dict[str, int] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self.num_open = 0
        self._idle: asyncio.Future[None] | None = None

    def now_s(self) -> float:
        return time.perf_counter() - self._began_s

    async def carry_out(self) -> list[Record]:
        """Open connections, fire what is due, cut off what is left."""
        loop = asyncio.get_running_loop()
        self._began_s = time.perf_counter()
        self._free = [await self._open() for _ in range(self.plan.connections)]
        self._began_s = time.perf_counter() + START_S
        begin = loop.time() + START_S
        for group in self.plan.groups:
            for due_s in group.due_s:
                loop.call_at(begin + due_s, self.fire, group, due_s)
            for _ in range(group.closed):
                loop.call_at(begin, self.fire, group, 0.0, group)
        await asyncio.sleep(START_S + self.plan.duration_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.plan.drain_s):
                await self._drained()
        for connection in self._all:
            connection.close()
        return self.records

    async def _drained(self) -> None:
        if self.num_open:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    async def _open(self) -> Connection:
        loop, plan = asyncio.get_running_loop(), self.plan
        _, made = await loop.create_connection(lambda: Connection(self), plan.host, plan.port)
        self._all.append(made)
        return made

    def free(self, connection: Connection) -> None:
        """Its answer has ended."""
        self._free.append(connection)
        self.num_open -= 1
        if not self.num_open and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def forget(self, connection: Connection) -> None:
        """The server has closed it: one that is idle for long, as a rule."""
        if connection in self._free:
            self._free.remove(connection)

    def fire(self, group: Group, due_s: float, refill: Group | None = None) -> None:
        """Send one request of a group now; a connection is opened if none is free."""
        index = self._num_sent.get(group.name, 0)
        self._num_sent[group.name] = index + 1
        record = Record(group.name, due_s, token_s=[], prompt_tokens=group.prompt_tokens)
        self.records.append(record)
        self.num_open += 1
        request = group.requests[index % len(group.requests)]
        if self._free:
            record.late_s = self.now_s() - due_s
            self._free.pop().send(request, record, refill)
            return
        task = asyncio.ensure_future(self._open_and_send(request, record, refill))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open_and_send(self, request: bytes, record: Record, refill: Group | None) -> None:
        with contextlib.suppress(OSError):
            connection = await self._open()
            record.late_s = self.now_s() - record.due_s
            connection.send(request, record, refill)


def load(plan: Plan) -> list[Record]:
    """Carry a plan out in a process of its own. Raises RuntimeError when that fails."""
    return run_child("benchmarks.sched.client", plan, plan.duration_s + plan.drain_s + SPARE_S)


def carry_out(plan: Plan) -> list[Record]:
    """In this process."""
    import uvloop

    gc.disable()  # a pause of the client must not look like one of the server
    return uvloop.run(Run(plan).carry_out())


def main() -> int:
    """Plan in, records out."""
    return serve_parent(Plan, carry_out)


if __name__ == "__main__":
    sys.exit(main())
