"""A wall clock that can jump: an offset in a file, read by whoever is under the storm.

The server tells the time by `time.time_ns` and `time.time`, looked up at each call; these are
replaced. Its monotonic clock goes on as it did, as it does when an operator sets the time.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

_OFFSET = struct.Struct("<q")
HOUR_NS = 3_600_000_000_000


def make(path: Path) -> None:
    """No offset yet."""
    path.write_bytes(_OFFSET.pack(0))


def jump(path: Path, offset_ns: int) -> None:
    """From now on the clock is so far ahead."""
    with path.open("r+b") as file:
        file.write(_OFFSET.pack(offset_ns))


def install(path: Path) -> None:
    """In this process and its forks."""
    with path.open("rb") as file:
        page = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    real_ns, real_s = time.time_ns, time.time
    time.time_ns = lambda: real_ns() + int(_OFFSET.unpack_from(page)[0])
    time.time = lambda: real_s() + float(_OFFSET.unpack_from(page)[0]) / 1e9
