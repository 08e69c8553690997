"""What a program prints, by whatever way, becomes lines of its job's log.

Descriptors 1 and 2 go to files, not to pipes: a C library that prints with Python's lock held can
never block on a reader that needs it. What has been read is given back to the disk.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import sys
import warnings
from pathlib import Path

from llmos.worker.plain import clean
from llmos.worker.telling import Teller

MAX_FILE_BYTES = 1 << 20
"""More than this that has been read is given back to the disk …"""

KEPT_BYTES = 65_536
"""… but for the newest of it: the worker's last words, should it die."""

CHUNK_BYTES = 1 << 20
MAX_BACKLOG_BYTES = 32 << 20
"""What a flood has left unread beyond this is skipped, its lines estimated."""

MAX_PARTIAL_BYTES = 65_536
"""A line without an end is taken as one at this length."""


class Tail:
    """Follows one file that something appends to."""

    def __init__(self, fd: int, source: str, teller: Teller) -> None:
        self._fd = fd
        self._source = source
        self._teller = teller
        self._at = os.fstat(fd).st_size
        self._partial = b""
        self._freed = 0
        self._mean_line_bytes = 80

    def poll(self) -> None:
        """Lines that are complete since the last time."""
        size = os.fstat(self._fd).st_size
        if size < self._at:  # somebody emptied it
            self._at = self._freed = 0
        if size - self._at > MAX_BACKLOG_BYTES:
            skipped = size - self._at - CHUNK_BYTES
            self._teller.drop(skipped // self._mean_line_bytes)
            self._at += skipped
        while self._at < size and (chunk := os.pread(self._fd, CHUNK_BYTES, self._at)):
            self._at += len(chunk)
            self._feed(chunk)
        if self._at - self._freed > MAX_FILE_BYTES:
            self._freed = self._at - KEPT_BYTES
            _give_back(self._fd, self._freed)

    def _feed(self, chunk: bytes) -> None:
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        if lines:
            self._mean_line_bytes = max(1, len(chunk) // len(lines))
        for at, line in enumerate(lines):
            if not self._tell(line):
                self._teller.drop(len(lines) - at - 1)
                break
        if len(self._partial) > MAX_PARTIAL_BYTES:
            self._tell(self._partial)
            self._partial = b""

    def _tell(self, line: bytes) -> bool:
        # a progress bar draws over itself: what would stay on a terminal is its last state
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        text = shown.decode("utf-8", "replace")
        return not text.strip() or self._teller.log(text, stream=self._source)

    def finish(self) -> None:
        """What came last, ended by a newline or not."""
        self.poll()
        if self._partial:
            self._tell(self._partial)
            self._partial = b""


class LogHandler(logging.Handler):
    """Records of the program's loggers, with level and name."""

    def __init__(self, teller: Teller) -> None:
        super().__init__()
        self._teller = teller

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises: a record that cannot be formatted is told by its format alone."""
        try:
            message = self.format(record)
        except (TypeError, ValueError, KeyError):
            message = str(record.msg)
        self._teller.log(
            message.rstrip(),
            stream="log",
            level=record.levelname.lower(),
            logger=clean(record.name[:200]),
        )


class Capture:
    """From `__init__` to `finish`, whatever this process prints or logs is told."""

    def __init__(self, folder: Path, teller: Teller) -> None:
        _flush()
        self._tails = []
        for fd, name in ((1, "stdout"), (2, "stderr")):
            path = folder / f"{name}.log"
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.dup2(file, fd)
            self._tails.append(Tail(file, name, teller))
        faulthandler.enable(
            2, all_threads=False
        )  # a crash inside a library leaves last words in stderr.log
        root = logging.getLogger()
        root.handlers[:] = [LogHandler(teller)]
        logging.captureWarnings(True)
        warnings.simplefilter("default")

    def poll(self) -> None:
        """What has been printed since the last time."""
        for tail in self._tails:
            tail.poll()

    def finish(self) -> None:
        """The last of it."""
        _flush()
        for tail in self._tails:
            tail.finish()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed or replaced by the program
            continue


_PUNCH_HOLE = 0x03
"""FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE of fallocate(2)."""


def _give_back(fd: int, size: int) -> None:
    """The beginning of a file becomes a hole: unlike cutting it, this loses nothing that is being
    added at its end. Cut it where the file system knows no holes."""
    punched = -1
    if sys.platform == "linux":
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
        fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        punched = fallocate(fd, _PUNCH_HOLE, 0, size)
    if punched != 0:
        os.ftruncate(fd, 0)
