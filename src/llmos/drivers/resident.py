"""What this process holds in the host's memory, as the system counts it. Light: no engine."""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


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
        return _read("self")
    except (OSError, KeyError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak_bytes = peak if sys.platform == "darwin" else peak << 10
        return Resident(peak_bytes, peak_bytes, 0, peak_bytes)


def read_family() -> Resident:
    """As `read_resident`, with all processes that this one has started, and those by them. Pages
    that several of them share count as often: no more than this is held."""
    found = [read_resident()]
    for pid in _descendants("self"):
        with contextlib.suppress(OSError, KeyError, ValueError, IndexError):  # it has just ended
            found.append(_read(pid))
    return Resident(
        sum(one.rss_bytes for one in found),
        sum(one.anonymous_bytes for one in found),
        sum(one.file_bytes for one in found),
        sum(one.peak_bytes for one in found),
    )


def _read(pid: str) -> Resident:
    lines = (_PROC / pid / "status").read_text("ascii", "replace").splitlines()
    fields = dict(line.split(":", 1) for line in lines if line.startswith(("Rss", "Vm")))
    size = {name: int(text.split()[0]) << 10 for name, text in fields.items()}
    anonymous = size["RssAnon"] + size["RssShmem"]
    return Resident(size["VmRSS"], anonymous, size["RssFile"], size["VmHWM"])


def _descendants(pid: str) -> Iterator[str]:
    """Started by any thread of it, and by those."""
    for children in (_PROC / pid / "task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text("ascii").split():
                yield child
                yield from _descendants(child)


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
