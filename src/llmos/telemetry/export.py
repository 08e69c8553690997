"""Records of what was traced on their way out: a bounded queue and one thread, so that nobody ever
waits for a process, a disk or a collector."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from llmos.telemetry.traced import Record, encode

log = logging.getLogger(__name__)

MAX_QUEUED_BYTES = 32 * 1024 * 1024
"""Of records that wait to be exported; of more, the newest are dropped and counted."""
MAX_EXPORTED_BYTES = 256 * 1024
"""Of records that go out together, some hundred: each time, everybody waits for the thread to have
its turn. The last one may be longer."""
INTERVAL_S = 0.5


class NotExported(OSError):
    """The first `num_exported` records are where they shall go, the rest may be lost."""

    def __init__(self, message: str, num_exported: int = 0) -> None:
        super().__init__(message)
        self.num_exported = num_exported


class Outlet(Protocol):
    """Where encoded records go. `export` is called from one thread, and raises OSError; NotExported
    when some of them are out."""

    def export(self, records: Sequence[bytes]) -> None: ...

    def close(self) -> None:
        """From another thread: an export under way fails soon."""
        ...


class Exporter:
    """`give` never waits and never fails. `dropped(n)` counts records that were lost."""

    def __init__(self, outlet: Outlet, dropped: Callable[[int], None]) -> None:
        self._outlet = outlet
        self._dropped = dropped
        self._queue: deque[bytes] = deque()
        self._given_bytes = 0  # of one thread each, so that neither needs a lock
        self._taken_bytes = 0
        self._closing = threading.Event()
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def give(self, record: Record) -> None:
        """Encoded at once: what it refers to may change, and waits as cheaply as can be."""
        try:
            data = encode(record)
        except (UnicodeError, OverflowError):  # of names that others chose
            self._dropped(1)
            return
        if self._given_bytes - self._taken_bytes + len(data) > MAX_QUEUED_BYTES:
            self._dropped(1)
            return
        self._given_bytes += len(data)
        self._queue.append(data)

    def close(self, timeout_s: float = 5.0) -> None:
        """What is queued goes out, as far as there is time; the rest is counted as dropped."""
        self._closing.set()
        self._thread.join(timeout_s)
        self._outlet.close()
        self._thread.join(timeout_s)
        if self._queue:
            self._dropped(len(self._queue))
            log.warning("%d records of traces are lost: there was no time", len(self._queue))

    def _run(self) -> None:
        while not self._closing.wait(INTERVAL_S):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        while self._queue:
            taken = self._take()
            try:
                self._outlet.export(taken)
                self._is_failing = False
            except Exception as error:  # noqa: BLE001 - a thread's edge: what is lost is counted
                exported = error.num_exported if isinstance(error, NotExported) else 0
                self._dropped(len(taken) - exported)
                if not self._is_failing:  # once, not once a second
                    log.warning("traces are lost: %s", error)
                self._is_failing = True
                return

    def _take(self) -> list[bytes]:
        taken: list[bytes] = []
        size_bytes = 0
        while self._queue and size_bytes < MAX_EXPORTED_BYTES:
            taken.append(self._queue.popleft())
            size_bytes += len(taken[-1])
        self._taken_bytes += size_bytes
        return taken
