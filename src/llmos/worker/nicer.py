"""How much of the processors a program leaves to others, where others want them."""

from __future__ import annotations

import os
import time
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")
"""Linux with `kernel.sched_autogroup_enabled`: sessions share processors as equals, and nice(2)
counts within one only. A worker is a session of its own; this is how nice that is (sched(7))."""

TRIES = 5
PAUSE_S = 0.1
"""Linux takes one such value in a tenth of a second from all who are not root."""


def be_nicer(by: int, group: Path = AUTOGROUP) -> None:
    """This thread and those it starts, and the session among others. Where the system knows no
    such sessions, or lets nobody change them, the first alone."""
    os.nice(by)
    for _ in range(TRIES):
        try:
            with group.open("r+b", buffering=0) as file:
                file.write(str(by).encode())
            return
        except BlockingIOError:
            time.sleep(PAUSE_S)
        except OSError:
            return
