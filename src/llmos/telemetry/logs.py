"""Structured logs: one JSON object a line to a file, plain lines to a terminal."""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
import time
from pathlib import Path

LOG = "llmos.log"
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

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802  its name there
        return self.stream is not None and self.stream.tell() >= self.maxBytes


def setup_logs(folder: Path, level: str, form: str = "text") -> None:
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
