"""What this process holds in the host's memory, as the system counts it. Light: no engine."""

from __future__ import annotations

import dataclasses
import mmap
import os
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


@dataclasses.dataclass(frozen=True, slots=True)
class Resident:
    """Bytes: the resident set, its pages of no file and of files, the largest it ever was."""

    rss_bytes: int
    anonymous_bytes: int
    file_bytes: int
    peak_bytes: int


def read_resident() -> Resident:
    """Counted now. Where the system does not tell, the peak stands for all of it."""
    try:
        lines = _STATUS.read_text("ascii", "replace").splitlines()
        fields = dict(line.split(":", 1) for line in lines if line.startswith(("Rss", "Vm")))
        size = {name: int(text.split()[0]) << 10 for name, text in fields.items()}
        anonymous = size["RssAnon"] + size["RssShmem"]
        return Resident(size["VmRSS"], anonymous, size["RssFile"], size["VmHWM"])
    except (OSError, KeyError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak_bytes = peak if sys.platform == "darwin" else peak << 10
        return Resident(peak_bytes, peak_bytes, 0, peak_bytes)


def page_bytes() -> int:
    """The system's unit of memory."""
    return os.sysconf("SC_PAGE_SIZE")


class Ballast:
    """Memory that a process really holds, so that a ledger has something to count."""

    def __init__(self, size_bytes: int) -> None:
        self._map: mmap.mmap | None = None
        if size_bytes:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            self._map = mmap.mmap(-1, size_bytes, flags=flags)
            for at in range(0, size_bytes, page_bytes()):
                self._map[at] = 1

    def drop(self) -> None:
        if self._map is not None:
            self._map.close()
