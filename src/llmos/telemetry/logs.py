"""Structured logs: one JSON object a line to a file, plain lines to a terminal."""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
import threading
import time
from pathlib import Path

LOG = "llmos.log"
REQUESTS = "llmos.requests"
"""The logger of ended requests, if they are logged."""
GATHER_S = 0.25
MAX_GATHERED = 100_000
MAX_LOG_BYTES = 16 * 1024 * 1024
NUM_OLD_LOGS = 3
_STANDARD = frozenset(vars(logging.makeLogRecord({})))


class JsonFormatter(logging.Formatter):
    """Time (UTC, ISO 8601), level, logger, message, and whatever was passed as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
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
    fits: here a file may be one line longer than it should."""

    def write_lines(self, lines: list[str]) -> None:
        """Already formatted; any thread."""
        self.acquire()
        try:
            if self.stream is None or self.stream.tell() >= self.maxBytes:
                self.doRollover()
            if self.stream is not None:
                self.stream.write("\n".join(lines) + "\n")
                self.flush()
        except (OSError, ValueError):  # a full disk, or closed: as logging does, go on without
            pass
        finally:
            self.release()

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802  its name there
        return self.stream is not None and self.stream.tell() >= self.maxBytes


class Gathered(logging.Handler):
    """Lines that come by the thousand: each is made at once and written with those of the same
    moment, by a thread. What came in the last `interval_s` of a server that was killed is lost."""

    def __init__(self, file: LogFile, interval_s: float = GATHER_S) -> None:
        super().__init__()
        self._file = file
        self._lines: list[str] = []
        self._interval_s = interval_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._lines) < MAX_GATHERED:
            self._lines.append(self._file.format(record))

    def close(self) -> None:
        """Also called when the interpreter ends."""
        self._closing.set()
        self._thread.join()
        super().close()

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            self._write()
        self._write()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._file.write_lines(lines)


def setup_logs(folder: Path, level: str, form: str = "text", *, requests: bool = False) -> None:
    """Everything to `folder/llmos.log` (rotated), warnings to stderr: as `text`, or as `json` for
    what collects the stderr of services. `requests`: those that end are logged, so gather them."""
    file = LogFile(folder / LOG, maxBytes=MAX_LOG_BYTES, backupCount=NUM_OLD_LOGS, encoding="utf-8")
    file.setFormatter(JsonFormatter())
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.WARNING)
    plain = logging.Formatter("%(levelname)s %(name)s: %(message)s")
    terminal.setFormatter(JsonFormatter() if form == "json" else plain)
    if requests:
        logger = logging.getLogger(REQUESTS)
        logger.propagate = False
        logger.addHandler(Gathered(file))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(file)
    root.addHandler(terminal)
    root.setLevel(level.upper())
