"""Processes that end with the one that started them, even when that is killed."""

from __future__ import annotations

import ctypes
import os
import signal

_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """SIGKILL for this process when the thread that started it ends (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() == 1:  # it is gone already
        os.kill(os.getpid(), signal.SIGKILL)
