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
MAX_SEQUENCE_BYTES = 16

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
        yield lambda timeout_s: _read(fileno, timeout_s)
    finally:
        termios.tcsetattr(fileno, termios.TCSADRAIN, before)


def _read(fileno: int, timeout_s: float) -> str | None:
    if not select.select([fileno], [], [], max(0.0, timeout_s))[0]:
        return None
    data = os.read(fileno, MAX_SEQUENCE_BYTES)
    if not data:
        return "q"  # the terminal is gone
    return ESCAPES.get(data) or data[:1].decode("ascii", "replace")


def _pass_time(timeout_s: float) -> None:
    select.select([], [], [], max(0.0, timeout_s))
