"""Group commit: one thread that writes, and one fsync for all who ask at the same time.

Writes that arrive while a commit is on its way share the next one. Under load (the last group had
several writes) the thread waits a moment, `commit_window_s`, for as many again; a lone write never
waits. Each write of a group has a savepoint of its own, so that its failure undoes nothing of the
others. Callers are answered after the commit; if that fails, nothing of the group is there, and all
of it hear why.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine

from llmos.errors import QueueFull, StorageError
from llmos.storage.config import StorageConfig
from llmos.telemetry.faults import reached

T = TypeVar("T")


TAILS = "llmos.tails"
"""Key in `Connection.info`: by name, what runs once before a group's commit. A write that has
succeeded leaves there what all of the group need to do only once."""


class Backend(Protocol):
    """What a writer needs to know of its database."""

    def typed(self, error: Exception) -> Exception:
        """The error of ours that a caller hears."""
        ...

    def is_open(self, connection: Connection) -> bool:
        """False when the database itself has ended the transaction."""
        ...

    def may_repeat(self, error: Exception) -> bool:
        """True when the same write may succeed if it is tried again (a deadlock was broken)."""
        ...

    def committed(self) -> None:
        """After each commit, on the writer's thread."""
        ...

    def failed(self) -> None:
        """After a commit that failed, on the writer's thread."""
        ...


class _Write:
    """One call: what to run, whom to answer, and how it went. `outside` of any transaction it gets
    no connection."""

    __slots__ = ("error", "fn", "loop", "outside", "result", "waiter")

    def __init__(
        self,
        fn: Callable[..., Any],
        waiter: asyncio.Future[Any] | Future[Any],
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        outside: bool = False,
    ) -> None:
        self.fn = fn
        self.outside = outside
        self.waiter = waiter
        self.loop = loop
        self.result: Any = None
        self.error: Exception | None = None

    def answer(self) -> None:
        """On the waiter's own thread."""
        if self.waiter.cancelled():
            return
        if self.error is not None:
            self.waiter.set_exception(self.error)
        else:
            self.waiter.set_result(self.result)


class Writer:
    """The only thread that writes. Whatever runs, runs between its transactions or inside one."""

    def __init__(self, engine: Engine, backend: Backend, config: StorageConfig, name: str) -> None:
        self._engine = engine
        self._backend = backend
        self._config = config
        self._queue: deque[_Write] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._num_pending = 0
        self._last_size = 1
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a transaction that is durable when this returns. Not begun if cancelled
        before. Raises QueueFull, StorageError (closed), and what `fn` raises."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()
        self._put(_Write(fn, waiter, loop))
        return await waiter

    def write_now(self, fn: Callable[[Connection], T]) -> T:
        """As `write`, blocking."""
        waiter: Future[T] = Future()
        self._put(_Write(fn, waiter))
        return waiter.result()

    def call(self, fn: Callable[[], T]) -> T:
        """Run `fn` on the writer's thread, outside of transactions. Blocking."""
        waiter: Future[T] = Future()
        self._put(_Write(fn, waiter, outside=True))
        return waiter.result()

    def close(self, last: Callable[[], None]) -> None:
        """Finish what was asked for, then `last`, then end. Blocking."""
        with self._changed:
            self._queue.append(_Write(last, Future(), outside=True))
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _put(self, item: _Write) -> None:
        with self._changed:
            if self._closed:
                raise StorageError("the database is closed")
            if self._num_pending >= self._config.max_pending:
                raise QueueFull("too many database calls are waiting", retry_after_s=1.0)
            self._num_pending += 1
            self._queue.append(item)
            self._changed.notify()

    def _main(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if self._closed:
                        return
                    self._changed.wait()
                group = self._gather()
            self._run([one for one in group if not one.waiter.cancelled()])
            with self._changed:
                self._num_pending -= len(group)
            _answer(group)

    def _gather(self) -> list[_Write]:
        """The next group; what goes outside goes alone. Holds the lock."""
        wanted = min(self._last_size, self._config.max_group_writes)
        deadline_s = time.monotonic() + self._config.commit_window_s
        while len(self._queue) < wanted and not self._closed:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not self._changed.wait(left_s):
                break
        group = [self._queue.popleft()]
        while self._queue and len(group) < self._config.max_group_writes:
            if group[0].outside or self._queue[0].outside:
                break
            group.append(self._queue.popleft())
        self._last_size = len(group)
        return group

    def _run(self, group: list[_Write]) -> None:
        if not group:
            return
        if group[0].outside:
            self._run_outside(group[0])
        else:
            self._attempt(group)
            for one in group:  # by itself: what was in the way is in the way of one
                if one.error is not None and self._backend.may_repeat(one.error):
                    self._attempt([one])

    def _run_outside(self, one: _Write) -> None:
        try:
            one.result = one.fn()
        except Exception as error:  # noqa: BLE001  carried over to the caller
            one.error = self._backend.typed(error)

    def _attempt(self, group: list[_Write]) -> None:
        """One transaction. Afterwards every write of the group has its result or its error."""
        for one in group:
            one.error = None
        try:
            with self._engine.connect() as connection, connection.begin() as transaction:
                reached("database.group.begun")
                tails: dict[str, Callable[[Connection], None]] = {}
                connection.info[TAILS] = tails
                for one in group:
                    self._step(connection, one, alone=len(group) == 1)
                if len(group) == 1 and group[0].error is not None:
                    transaction.rollback()
                    return
                for tail in tails.values():
                    tail(connection)
                reached("database.group.before_commit")
                transaction.commit()
                reached("database.group.after_commit")
        except Exception as error:  # noqa: BLE001  carried over to every caller of the group
            typed = self._backend.typed(error)
            for one in group:
                one.error = one.error or typed
            self._backend.failed()
            return
        self._backend.committed()

    def _step(self, connection: Connection, one: _Write, *, alone: bool) -> None:
        """One write in its savepoint. Raises only when the whole transaction is lost."""
        if not alone:
            connection.exec_driver_sql("SAVEPOINT one")
        try:
            one.result = one.fn(connection)
        except Exception as error:
            one.error = self._backend.typed(error)
            if not self._backend.is_open(connection):
                raise
            if alone:
                return
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT one")
        if not alone:
            connection.exec_driver_sql("RELEASE SAVEPOINT one")


def _answer(group: list[_Write]) -> None:
    """All waiters of one loop are woken by one call into it."""
    loops: dict[asyncio.AbstractEventLoop, list[_Write]] = {}
    for one in group:
        if one.loop is None:
            one.answer()
        else:
            loops.setdefault(one.loop, []).append(one)
    for loop, waiting in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its waiters with it
            loop.call_soon_threadsafe(_answer_all, waiting)


def _answer_all(group: list[_Write]) -> None:
    for one in group:
        one.answer()
