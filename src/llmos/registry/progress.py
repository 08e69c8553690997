"""From a working thread to whoever watches: how far, and whether to stop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from llmos.abi.registry import PullProgress
from llmos.errors import StorageError

T = TypeVar("T")
_MIN_INTERVAL_S = 0.05
_GRACE_S = 2.0
"""How long a cancelled caller waits for the thread to clean up; the thread does so even later."""


class Stopped(Exception):
    """Raised in the thread by its next report after `stop`. Nobody outside sees it."""


class Meter:
    """Counts bytes in the thread and tells the loop, at most twenty times a second."""

    def __init__(self, tell: Callable[[PullProgress], None]) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._told_s = 0.0
        self._state = PullProgress("check", "", 0, 0)
        self.moved_s = time.monotonic()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stop.set()

    @property
    def total_bytes(self) -> int:
        return self._state.total_bytes

    @property
    def done_bytes(self) -> int:
        return self._state.done_bytes

    def begin(self, phase: str, file: str, total_bytes: int) -> None:
        """A phase starts, or goes on with another file when the phase is the same."""
        done = self._state.done_bytes if phase == self._state.phase else 0
        self._update(PullProgress(phase, file, done, total_bytes), now=True)

    def add(self, num_bytes: int) -> None:
        """More bytes are done. Raises Stopped."""
        state = self._state
        done = max(0, state.done_bytes + num_bytes)
        self._update(PullProgress(state.phase, state.file, done, state.total_bytes), now=False)

    def _update(self, state: PullProgress, *, now: bool) -> None:
        if self._stop.is_set():
            raise Stopped("stopped")
        self._state = state
        self.moved_s = time.monotonic()
        at_end = state.done_bytes == state.total_bytes
        if now or at_end or self.moved_s - self._told_s >= _MIN_INTERVAL_S:
            self._told_s = self.moved_s
            self._loop.call_soon_threadsafe(self._tell, state)


async def run_stoppable(work: Callable[[], T], meter: Meter, stall_timeout_s: float) -> T:
    """Run `work` in a thread of its own until it ends, stalls, or the caller is cancelled.

    The thread is a daemon: one that hangs in a dead connection cannot hold up the server's end. It
    cleans up after itself whenever it ends. Raises what `work` raises, StorageError on a stall.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001  handed over whole to whoever waits
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=run, name="llmos-pull", daemon=True).start()
    try:
        while True:
            left_s = meter.moved_s + stall_timeout_s - time.monotonic()
            if left_s <= 0:
                stalled = StorageError(f"the pull moved no byte for {stall_timeout_s:g} s")
                stalled.retryable = True
                raise stalled
            await asyncio.wait([done], timeout=left_s)
            if done.done():
                return done.result()
    finally:
        meter.stop()
        if not done.done():
            await asyncio.wait([done], timeout=_GRACE_S)
        if done.done():
            done.exception()  # retrieved: a stopped thread's last words interest nobody


def total_size(folder: Path, names: list[str]) -> int:
    """Bytes of the named files."""
    return sum((folder / name).stat().st_size for name in names)
