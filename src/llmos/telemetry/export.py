"""Spans on their way out: a bounded queue and one thread, so that nobody ever waits for a disk or
a collector."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from llmos.telemetry.spans import Span
from llmos.telemetry.tracer import Batch

log = logging.getLogger(__name__)

MAX_QUEUED = 4096
"""Requests whose spans wait to be exported; of more, the newest are dropped and counted."""
MAX_EXPORTED = 64
"""Requests whose spans go out together."""
INTERVAL_S = 1.0
BREATH_REQUESTS, BREATH_S = 8, 0.0005
"""After the spans of so many, the interpreter is left to others: who computes in one thread else
holds up every other one for 5 ms whenever that has waited for a socket."""


class Sink(Protocol):
    """Where spans go. `export` is called from one thread, and raises OSError."""

    def export(self, spans: Sequence[Span]) -> None: ...

    def close(self) -> None:
        """From another thread: an export under way ends soon."""
        ...


class Exporter:
    """`give` never waits. `dropped(n)` counts requests whose spans were lost."""

    def __init__(self, sink: Sink, dropped: Callable[[int], None]) -> None:
        self._sink = sink
        self._dropped = dropped
        self._queue: deque[Batch] = deque()
        self._closing = threading.Event()
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def give(self, batch: Batch) -> None:
        """To be called for its spans, and exported."""
        if len(self._queue) >= MAX_QUEUED:
            self._dropped(1)
        else:
            self._queue.append(batch)

    def close(self, timeout_s: float = 5.0) -> None:
        """What is queued goes out, as far as there is time."""
        self._closing.set()
        self._thread.join(timeout_s)
        self._sink.close()

    def _run(self) -> None:
        while not self._closing.wait(INTERVAL_S):
            self._drain()
        self._drain()

    def _made(self, batches: Sequence[Batch]) -> list[Span]:
        spans: list[Span] = []
        for number, batch in enumerate(batches, 1):
            spans += batch()
            if number % BREATH_REQUESTS == 0 and not self._closing.is_set():
                time.sleep(BREATH_S)
        return spans

    def _drain(self) -> None:
        while self._queue:
            count = min(MAX_EXPORTED, len(self._queue))
            taken = [self._queue.popleft() for _ in range(count)]
            try:
                self._sink.export(self._made(taken))
                self._is_failing = False
            except Exception as error:  # noqa: BLE001 - a thread's edge: what is lost is counted
                self._dropped(count)
                if not self._is_failing:  # once, not once a second
                    log.warning("traces are lost: %s", error)
                self._is_failing = True
                return
