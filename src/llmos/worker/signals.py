"""What the kernel has told an attempt, and the condition under which its threads wait for more."""

from __future__ import annotations

import threading
import time

from llmos.abi.program import Interrupted

STOP_GRACE_S = 2.0
"""For so long after it was told to stop, a program may still emit; results and checkpoints are
taken until its worker is shut down."""


class Signals:
    """Flags that are only ever raised. `changed` also guards the windows of results and calls."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.should_yield = False
        self.reason = ""
        self._stopped_s: float | None = None
        self._is_over = False

    @property
    def should_stop(self) -> bool:
        return self._stopped_s is not None

    @property
    def is_over(self) -> bool:
        return self._is_over

    def give_way(self, reason: str, stop: bool) -> None:
        """The scheduler's wish, or with `stop` the job's end."""
        with self.changed:
            self.should_yield = True
            self.reason = reason
            if stop and self._stopped_s is None:
                self._stopped_s = time.monotonic()
            self.changed.notify_all()

    def end(self, reason: str) -> None:
        """The worker must go, or the attempt has had its last word: nothing is taken any more."""
        with self.changed:
            if not self._is_over:
                self._is_over = True
                self.reason = reason
            self.should_yield = True
            self._stopped_s = self._stopped_s or time.monotonic()
            self.changed.notify_all()

    def abandon(self, reason: str) -> None:
        """As `end`, without a lock that a thread we do not have may hold."""
        self._is_over = self.should_yield = True
        self.reason = reason

    def check_over(self) -> None:
        """Raises Interrupted when nothing is taken any more."""
        if self._is_over:
            raise Interrupted(self.reason)

    def check_stop(self) -> None:
        """Raises Interrupted as soon as the job is over."""
        if self._is_over or self._stopped_s is not None:
            raise Interrupted(self.reason)

    def check_grace(self) -> None:
        """Raises Interrupted when the job has been over for longer than a polite program needs."""
        if self._is_over:
            raise Interrupted(self.reason)
        if self._stopped_s is not None and time.monotonic() - self._stopped_s > STOP_GRACE_S:
            raise Interrupted(self.reason)
