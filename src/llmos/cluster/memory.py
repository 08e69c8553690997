"""How much memory this node has left: proc(5), and the control groups we are in (cgroup v1, v2).

A group's usage counts the cache of files its processes read. What of it is inactive goes as soon
as somebody wants memory, so it is available; the rest may be in use.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llmos.abi.node import NodeMemory
from llmos.cluster import proc

CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60
"""cgroup v1 says so by a number near 2**63."""


class _Files(NamedTuple):
    """What a version calls its files, and the lines in them."""

    limit: str
    usage: str
    inactive: str
    events: str


_V1 = _Files(
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control"
)
_V2 = _Files("memory.max", "memory.current", "inactive_file", "memory.events")


def measure() -> NodeMemory:
    """See `abi.NodeAgent`."""
    meminfo = _meminfo()
    totals, available = [meminfo.get("MemTotal") or _physical_bytes()], []
    if "MemAvailable" in meminfo:
        available.append(meminfo["MemAvailable"])
    num_kills = None
    for folder, files in _groups():
        if (limit := _number(folder / files.limit)) is not None and limit < UNLIMITED:
            totals.append(limit)
            if (used := _used_bytes(folder, files)) is not None:
                available.append(max(0, limit - used))
        if num_kills is None:
            num_kills = _fields(folder / files.events).get("oom_kill")
    if num_kills is None:
        num_kills = _fields(proc.PROC / "vmstat").get("oom_kill")
    return NodeMemory(
        min((total for total in totals if total), default=0),
        min(available, default=None),
        num_kills,
    )


def _groups() -> Iterator[tuple[Path, _Files]]:
    """The groups that bound us, our own first, then those it is in."""
    for line in _text(proc.PROC / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            yield from _upwards(CGROUPS / "memory", path, _V1)
        elif number == "0" and not controllers:
            yield from _upwards(CGROUPS, path, _V2)


def _upwards(root: Path, path: str, files: _Files) -> Iterator[tuple[Path, _Files]]:
    """The path may be that of the host, which a container does not have: its root is our group."""
    names = [name for name in path.split("/") if name]
    if ".." not in names:
        for end in range(len(names), 0, -1):
            yield root.joinpath(*names[:end]), files
    yield root, files


def _used_bytes(folder: Path, files: _Files) -> int | None:
    usage = _number(folder / files.usage)
    if usage is None:
        return None
    return usage - _fields(folder / "memory.stat").get(files.inactive, 0)


def _meminfo() -> dict[str, int]:
    """In bytes."""
    fields = _fields(proc.PROC / "meminfo")
    return {name.removesuffix(":"): value * 1024 for name, value in fields.items()}


def _physical_bytes() -> int:
    """Where there is no /proc; 0 where there is no answer either."""
    with contextlib.suppress(OSError, ValueError):
        return max(0, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return 0


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number, and maybe a unit; others are left out."""
    found = {}
    for line in _text(path).splitlines():
        words = line.split()
        with contextlib.suppress(ValueError):
            if len(words) > 1:
                found[words[0]] = int(words[1])
    return found


def _number(path: Path) -> int | None:
    """None: no such file, or no number, which is how cgroup v2 says that there is no limit."""
    with contextlib.suppress(ValueError):
        return int(_text(path))
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
