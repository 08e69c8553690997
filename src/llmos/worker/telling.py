"""What a program tells: events and progress, gathered for a moment, never more than is allowed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from llmos.abi import worker as msg
from llmos.abi.jobs import JobProgress, NewEvent
from llmos.errors import InvalidRequest
from llmos.worker.plain import clean, plain
from llmos.worker.signals import Signals

LOG = "log"
MAX_LINE_CHARS = 4096
MAX_KIND_CHARS = 64
MAX_EVENT_BYTES = 65_536
MAX_TOLD_EVENTS = 256
"""Events of one message."""

PROGRESS_PERIOD_S = 0.2
DROPPED_PERIOD_S = 1.0
MAX_COUNTS = 64


class Bucket:
    """So many a second, a second's worth at once."""

    def __init__(self, rate_per_s: float) -> None:
        self.rate_per_s = max(rate_per_s, 1.0)
        self._level = self.rate_per_s
        self._since_s = time.monotonic()

    def wait_s(self) -> float:
        """Takes one if there is one: 0. Otherwise how long until there is."""
        now_s = time.monotonic()
        self._level = min(self.rate_per_s, self._level + (now_s - self._since_s) * self.rate_per_s)
        self._since_s = now_s
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self.rate_per_s


class Teller:
    """Log lines over the rate are dropped, counted and the count is told. Other events are the
    program's results: they are slowed down instead. `flush` is called every few milliseconds."""

    def __init__(
        self, send: Callable[[msg.Told], None], signals: Signals, max_log_lines_per_s: float
    ) -> None:
        self._send = send
        self._signals = signals
        self._lock = threading.Lock()
        self._flushing = threading.Lock()  # keeps two flushes in order
        self._lines = Bucket(max_log_lines_per_s)
        self._others = Bucket(max_log_lines_per_s)
        self._events: list[NewEvent] = []
        self._progress: JobProgress | None = None
        self._progress_s = -math.inf
        self._num_dropped = 0
        self._dropped_s = -math.inf

    def log(self, message: str, **about: Any) -> bool:
        """One line. False when it was dropped. Never blocks, never raises."""
        with self._lock:
            if self._lines.wait_s() > 0:
                self._num_dropped += 1
                return False
            value = {"message": bounded_line(message), **about}
            self._events.append(NewEvent(time.time_ns(), LOG, value))
            return True

    def drop(self, num_lines: int) -> None:
        """Lines that somebody else threw away."""
        with self._lock:
            self._num_dropped += num_lines

    def emit(self, kind: Any, value: Any) -> None:
        """Raises InvalidRequest for what is no JSON object of at most MAX_EVENT_BYTES."""
        if not isinstance(kind, str) or not 0 < len(kind) <= MAX_KIND_CHARS:
            raise InvalidRequest(f"a kind has 1 to {MAX_KIND_CHARS} characters", param="kind")
        if not isinstance(value, Mapping):
            raise InvalidRequest(f"an event's value is an object, not {type(value).__name__}")
        copy = plain(value, kind, MAX_EVENT_BYTES)
        bucket = self._lines if kind == LOG else self._others
        while True:
            with self._lock:
                wait_s = bucket.wait_s()
                if not wait_s:
                    self._events.append(NewEvent(time.time_ns(), clean(kind), copy))
                    return
                if kind == LOG:
                    self._num_dropped += 1
                    return
            with self._signals.changed:
                self._signals.changed.wait(wait_s)
            self._signals.check_grace()

    def progress(self, progress: JobProgress) -> None:
        """The newest one wins. Raises InvalidRequest."""
        if not (math.isfinite(progress.done) and math.isfinite(progress.total)):
            raise InvalidRequest("progress is a finite number", param="done")
        if len(progress.counts) > MAX_COUNTS:
            raise InvalidRequest(f"over {MAX_COUNTS} counts", param="counts")
        with self._lock:
            self._progress = progress

    def flush(self, final: bool = False) -> None:
        """Send what there is; `final`: also a progress that came too soon after the last one."""
        with self._flushing:
            now_s = time.monotonic()
            with self._lock:
                self._count_dropped(now_s, final)
                events, self._events = self._events, []
                progress = None
                if final or now_s - self._progress_s >= PROGRESS_PERIOD_S:
                    progress, self._progress = self._progress, None
                    self._progress_s = now_s if progress else self._progress_s
            for at in range(0, len(events), MAX_TOLD_EVENTS):
                self._send(msg.Told(events[at : at + MAX_TOLD_EVENTS]))
            if progress is not None:
                self._send(msg.Told([], progress))

    def _count_dropped(self, now_s: float, final: bool) -> None:
        if self._num_dropped and (final or now_s - self._dropped_s >= DROPPED_PERIOD_S):
            rate = f"{self._lines.rate_per_s:g}"
            value = {
                "message": f"{self._num_dropped} lines dropped: over {rate} lines a second",
                "num_dropped": self._num_dropped,
                "level": "warning",
            }
            self._events.append(NewEvent(time.time_ns(), LOG, value))
            self._num_dropped, self._dropped_s = 0, now_s


def bounded_line(text: str) -> str:
    """At most MAX_LINE_CHARS, saying how many are missing."""
    if len(text) > MAX_LINE_CHARS:
        text = f"{text[:MAX_LINE_CHARS]} … ({len(text) - MAX_LINE_CHARS} characters more)"
    return clean(text)


def to_progress(done: Any, total: Any, unit: Any, what: Any, counts: Any) -> JobProgress:
    """Raises InvalidRequest for what is of another type."""
    fields = {"done": done, "total": total, "unit": unit, "what": what, "counts": counts or {}}
    try:
        read = msgspec.convert(fields, JobProgress)
    except (msgspec.ValidationError, OverflowError) as error:
        raise InvalidRequest(f"progress: {error}") from None
    return JobProgress(
        read.done,
        read.total,
        clean(read.unit[:MAX_KIND_CHARS]),
        bounded_line(read.what),
        {clean(name[:MAX_KIND_CHARS]): number for name, number in read.counts.items()},
        time.time_ns(),
    )
