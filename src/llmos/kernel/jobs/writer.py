"""What a program told, on its way to disk: in order, gathered, and confirmed only when durable."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from llmos.abi import worker as msg
from llmos.abi.files import FileStore
from llmos.abi.jobs import Attempt, JobProgress, JobStore, NewEvent, ResultRow
from llmos.errors import LLMOSError, ProtocolViolation
from llmos.kernel.jobs.disk import Disk


class Writer:
    """Of one attempt; one task. `reply` goes to the program, `lost` is called when the store says
    that the attempt is not the job's any more, `written` whenever its log has grown. `register`
    makes a folder that lies within another a version of a model, and tells its reference."""

    def __init__(
        self,
        attempt: Attempt,
        store: JobStore,
        files: FileStore,
        disk: Disk,
        *,
        max_events: int,
        max_rows: int,
        reply: Callable[[msg.Kept | msg.Gathered | msg.Registered], None],
        lost: Callable[[], None],
        written: Callable[[], None],
        register: Callable[[str, str, str], Awaitable[str]],
    ) -> None:
        self._attempt = attempt
        self._store = store
        self._files = files
        self._disk = disk
        self._max_rows = max_rows
        self._reply = reply
        self._lost = lost
        self._written = written
        self._register = register
        self._events: deque[NewEvent] = deque(maxlen=max_events)
        self._num_dropped = 0
        self._progress: JobProgress | None = None
        self._rows: list[ResultRow] = []
        self._checkpoint: tuple[str, str] | None = None
        self._wanted: tuple[str, str] | None = None
        self._num_gathered = 0
        self._made: tuple[str, str, str] | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_lost = False

    def told(self, message: msg.Told) -> None:
        """The newest progress counts; of too many events, the oldest go and are counted."""
        room = (self._events.maxlen or 0) - len(self._events)
        self._num_dropped += max(0, len(message.events) - room)
        self._events.extend(message.events)
        self._progress = message.progress or self._progress
        self._go()

    def results(self, message: msg.Results) -> None:
        """Raises ProtocolViolation for a worker that does not wait for `Kept`."""
        if len(self._rows) + len(message.rows) > 2 * self._max_rows:
            raise ProtocolViolation("the worker sends results without waiting for the disk")
        self._rows += message.rows
        self._go()

    def checkpoint(self, path: str, folder: str) -> None:
        """A file of its worker's `folder`. Raises ProtocolViolation for a second one before the
        first is kept."""
        if self._checkpoint is not None:
            raise ProtocolViolation("the worker sends a checkpoint before the last one is kept")
        self._checkpoint = (path, folder)
        self._go()

    def gather(self, stream: str, folder: str) -> None:
        """Into a file of its worker's `folder`. Raises ProtocolViolation as `checkpoint`."""
        if self._wanted is not None:
            raise ProtocolViolation("the worker gathers a second stream before it has the first")
        self._wanted = (stream, folder)
        self._go()

    def register(self, path: str, name: str, folder: str) -> None:
        """A folder within its worker's `folder`. Raises ProtocolViolation as `checkpoint`."""
        if self._made is not None:
            raise ProtocolViolation("the worker registers a second model before it has the first")
        self._made = (path, name, folder)
        self._go()

    async def drain(self) -> None:
        """Returns when all of it is durable, or no longer wanted."""
        while self._task is not None:
            await asyncio.wait([self._task])
            self._task.result()
            if self._is_empty():
                return

    def _is_empty(self) -> bool:
        asked = self._progress, self._checkpoint, self._wanted, self._made
        return not (self._events or self._rows or any(asked))

    def _go(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while not self._is_empty() and not self.is_lost:
            await asyncio.gather(self._write_told(), self._write_rows())
            if self._checkpoint is not None and not self._rows:
                await self._write_checkpoint(*self._checkpoint)
            if self._wanted is not None and not self._rows:
                await self._write_gathered(*self._wanted)
            if self._made is not None and not self._rows:
                await self._write_made(*self._made)
        if self.is_lost:
            self._events.clear()
            self._rows, self._progress = [], None
            self._checkpoint, self._wanted, self._made = None, None, None

    async def _write_told(self) -> None:
        events, progress = self._take_events(), self._progress
        self._progress = None
        store, attempt = self._store, self._attempt
        if events:
            last = await self._disk.surely("append", lambda: store.append(attempt, events))
            self._check(last is not None)
        if progress is not None:
            await self._disk.surely("progress", lambda: store.progress(attempt, progress))
        if events or progress is not None:
            self._written()

    def _take_events(self) -> list[NewEvent]:
        events = list(self._events)
        self._events.clear()
        if self._num_dropped:
            what: dict[str, Any] = {"text": f"{self._num_dropped} events were dropped here"}
            events.insert(0, NewEvent(events[0].at_ns, "log", what))
            self._num_dropped = 0
        return events

    async def _write_rows(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            kept = await self._disk.surely(
                "results", lambda: self._store.put_results(self._attempt, rows)
            )
            self._check(kept)
            if kept:
                self._reply(msg.Kept(num_results=len(rows)))

    async def _write_checkpoint(self, path: str, folder: str) -> None:
        """Waits for a full disk; of anything else the program hears, and has its file still."""
        error = None
        try:
            ref = await self._disk.with_room(lambda: self._files.adopt(path, folder))
            kept = await self._disk.surely(
                "checkpoint", lambda: self._store.checkpoint(self._attempt, ref)
            )
            self._check(kept)
        except LLMOSError as failure:
            error = failure.to_info()
        self._checkpoint = None
        if not self.is_lost:
            self._reply(msg.Kept(checkpoint=True, error=error))

    async def _write_gathered(self, stream: str, folder: str) -> None:
        """Waits for a full disk, as a checkpoint does."""
        self._num_gathered += 1
        path = f"{folder}/gathered-{self._num_gathered}"
        answer = msg.Gathered(path)
        store, attempt = self._store, self._attempt
        try:
            kept = await self._disk.with_room(lambda: store.gather(attempt, stream, path))
            self._check(kept)
        except LLMOSError as failure:
            answer = msg.Gathered(error=failure.to_info())
        self._wanted = None
        if not self.is_lost:
            self._reply(answer)

    async def _write_made(self, path: str, name: str, folder: str) -> None:
        """Of the job's current attempt only. Waits for a full disk, as a checkpoint does."""
        answer = msg.Registered()
        store, attempt, at_ns = self._store, self._attempt, time.time_ns()
        begun = [NewEvent(at_ns, "log", {"text": f"registering a version of {name[:128]}"})]
        last = await self._disk.surely("append", lambda: store.append(attempt, begun))
        self._check(last is not None)
        if not self.is_lost:
            try:
                register = self._register
                answer = msg.Registered(
                    await self._disk.with_room(lambda: register(path, name, folder))
                )
            except LLMOSError as failure:
                answer = msg.Registered(error=failure.to_info())
        self._made = None
        if not self.is_lost:
            self._reply(answer)

    def _check(self, is_current: bool) -> None:
        if not is_current and not self.is_lost:
            self.is_lost = True
            self._lost()
