"""Structured logs: one JSON object a line to a file, plain lines to a terminal."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import logging.handlers
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

LOG = "llmos.log"
REQUESTS = "llmos.requests"
"""The logger that lines about ended requests are of."""
GATHER_S = 0.25
MAX_GATHERED = 100_000
MAX_LOG_BYTES = 16 * 1024 * 1024
NUM_OLD_LOGS = 3
_STANDARD = frozenset(vars(logging.makeLogRecord({})))

encode = msgspec.json.Encoder().encode


class JsonFormatter(logging.Formatter):
    """Time (UTC, ISO 8601), level, logger, message, and whatever was passed as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": stamp(int(record.created * 1e9)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class LogFile(logging.handlers.RotatingFileHandler):
    """Python's, which asks the system twice and formats each line a second time to see whether it
    fits: here a file may be one line longer than it should. Nothing waits in a buffer: what is not
    in the file after a write never will be."""

    def write(self, lines: bytes) -> None:
        """Whole ones, as they are: all, or none with OSError. Any thread."""
        with self.lock or contextlib.nullcontext():
            if self.stream is None:  # a rollover could not open it: another one would lose old logs
                self.stream = self._open()
            elif self.stream.tell() >= self.maxBytes:
                self.doRollover()
            descriptor = self.stream.fileno()
            end, rest = os.fstat(descriptor).st_size, memoryview(lines)
            try:
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            except OSError:
                os.ftruncate(descriptor, end)  # a line that is cut would spoil the next one
                raise

    def emit(self, record: logging.LogRecord) -> None:
        """As Python's: what goes wrong is told on stderr."""
        try:
            self.write(self.format(record).encode() + b"\n")
        except Exception:  # noqa: BLE001 - nobody who logs expects it
            self.handleError(record)


class RequestLine(msgspec.Struct, frozen=True, rename={"service_class": "class"}):
    """What the log says of a request that has ended. Durations in seconds."""

    time: str
    level: str
    logger: str
    message: str
    request_id: str
    model: str
    route: str
    tenant_id: str
    service_class: str
    outcome: str
    prompt_tokens: int
    completion_tokens: int
    lasted_s: float
    queued_s: float | msgspec.UnsetType = msgspec.UNSET
    ttft_s: float | msgspec.UnsetType = msgspec.UNSET
    parent_id: str | msgspec.UnsetType = msgspec.UNSET
    trace_id: str | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


class RequestLines:
    """Lines that come by the thousand pass Python's logging by: each is encoded at once and written
    with those of the same moment, by a thread. What came in the last `interval_s` of a server that
    was killed is lost. `dropped(n)` counts lines that were lost otherwise; nobody ever waits."""

    def __init__(
        self, file: LogFile, dropped: Callable[[int], None], interval_s: float = GATHER_S
    ) -> None:
        self._file = file
        self._dropped = dropped
        self._lines: deque[bytes] = deque()
        self._interval_s = interval_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def give(self, line: RequestLine) -> None:
        """One more, after those before it."""
        if len(self._lines) >= MAX_GATHERED:
            self._dropped(1)
            return
        try:
            self._lines.append(encode(line))
        except UnicodeError:  # of a name that others chose
            self._dropped(1)

    def close(self) -> None:
        """What was given is in the file."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            self._write()
        self._write()

    def _write(self) -> None:
        if lines := [self._lines.popleft() for _ in range(len(self._lines))]:
            try:
                self._file.write(b"\n".join(lines) + b"\n")
            except OSError:  # a full disk: as logging does, go on without
                self._dropped(len(lines))


def setup_logs(folder: Path, level: str, form: str = "text") -> LogFile:
    """Everything to `folder/llmos.log` (rotated), warnings to stderr: as `text`, or as `json` for
    what collects the stderr of services."""
    file = LogFile(folder / LOG, maxBytes=MAX_LOG_BYTES, backupCount=NUM_OLD_LOGS, encoding="utf-8")
    file.setFormatter(JsonFormatter())
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.WARNING)
    plain = logging.Formatter("%(levelname)s %(name)s: %(message)s")
    terminal.setFormatter(JsonFormatter() if form == "json" else plain)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(file)
    root.addHandler(terminal)
    root.setLevel(level.upper())
    return file


def stamp(at_ns: int) -> str:
    """UTC, ISO 8601, to the millisecond, as every line of the log has it."""
    second, rest_ns = divmod(at_ns, 1_000_000_000)
    return f"{_second(second)}.{rest_ns // 1_000_000:03d}Z"


@functools.lru_cache(maxsize=8)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
