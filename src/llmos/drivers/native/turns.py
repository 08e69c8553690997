"""Long work in turns with the steps of a batch: a replica that is asked for a sign of life, or to
decode, is not to wait until an image has gone through all of a vision tower.

The work has a thread, which runs only while `go_on` waits for it: there are never two at work.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_at_work = threading.local()


class Turns(Generic[T]):
    """One piece of work, which calls `pause` now and then. It ends with the last reference."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._shared = _Shared(work)
        weakref.finalize(self, self._shared.give_up)
        threading.Thread(target=self._shared.run, name="turns", daemon=True).start()

    @property
    def is_over(self) -> bool:
        return self._shared.is_over

    def go_on(self, until_s: float) -> bool:
        """Until that time, to the next pause at least. True: it is over."""
        self._shared.go_on(until_s)
        return self.is_over

    def result(self) -> T:
        """Once it is over. Raises what the work did."""
        return self._shared.result()


class _Shared(Generic[T]):
    """What the thread knows: not the `Turns`, whose end would never come."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work
        self._until_s = 0.0
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._is_given_up = False
        self._made: list[T] = []
        self._error: BaseException | None = None
        self.is_over = False

    def go_on(self, until_s: float) -> None:
        if self.is_over:
            return
        self._until_s = until_s
        self._go.release()
        self._back.acquire()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._made[0]

    def give_up(self) -> None:
        self._is_given_up = True
        self._go.release()

    def run(self) -> None:
        """The thread."""
        _at_work.shared = self
        try:
            self._wait()
            assert self._work is not None
            self._made.append(self._work())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error.with_traceback(None)
        self._work = None
        self.is_over = True
        self._back.release()

    def pause(self) -> None:
        if time.monotonic() >= self._until_s:
            self._back.release()
            self._wait()

    def _wait(self) -> None:
        self._go.acquire()
        if self._is_given_up:
            raise _GivenUp


class _GivenUp(BaseException):
    """Nobody waits for the work any more; no library is to catch it."""


def pause() -> None:
    """Called by work in turns; elsewhere it does nothing."""
    shared: _Shared[object] | None = getattr(_at_work, "shared", None)
    if shared is not None:
        shared.pause()
