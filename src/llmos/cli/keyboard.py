"""Single keys from a terminal, without waiting for a line."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator

ESCAPES = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down"}
MAX_READ_BYTES = 64

ReadKey = Callable[[float], str | None]


@contextlib.contextmanager
def keyboard() -> Iterator[ReadKey]:
    """A function that waits up to so many seconds for a key; arrows are `up` and `down`.

    The terminal is as it was afterwards. Without one nobody can press a key, and time just passes.
    """
    if not sys.stdin.isatty():
        yield _pass_time
        return
    fileno = sys.stdin.fileno()
    before = termios.tcgetattr(fileno)
    try:
        tty.setcbreak(fileno)
        yield _Keys(fileno).read
    finally:
        termios.tcsetattr(fileno, termios.TCSADRAIN, before)


class _Keys:
    """Takes apart what was typed faster than it was read."""

    def __init__(self, fileno: int) -> None:
        self._fileno = fileno
        self._pending = b""

    def read(self, timeout_s: float) -> str | None:
        """The next key, or None after so many seconds."""
        if not self._pending:
            if not select.select([self._fileno], [], [], max(0.0, timeout_s))[0]:
                return None
            self._pending = os.read(self._fileno, MAX_READ_BYTES)
            if not self._pending:
                return "q"  # the terminal is gone
        for sequence, key in ESCAPES.items():
            if self._pending.startswith(sequence):
                self._pending = self._pending[len(sequence) :]
                return key
        first, self._pending = self._pending[:1], self._pending[1:]
        return first.decode("ascii", "replace")


def _pass_time(timeout_s: float) -> None:
    select.select([], [], [], max(0.0, timeout_s))
