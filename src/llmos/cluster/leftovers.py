"""Workers of a dead server, found and killed at the next boot.

A worker dies with its parent (PR_SET_PDEATHSIG) or of the end of its socket, but neither is
certain: a frozen process sees no end of a socket, and children that a program made know no parent
but it.
So each worker is written down before it can do anything: `run/workers/PID`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path

import msgspec

from llmos.cluster.proc import PROC, find_stat, members_of

log = logging.getLogger(__name__)


class Note(msgspec.Struct, frozen=True):
    """A worker that was started. `boot_id` as the system names its own start: pids and ticks mean
    nothing in another one. `scratch` is the folder it works in."""

    pid: int
    start_ticks: int
    boot_id: str
    scratch: str


class Notebook:
    """Which workers of ours may be alive: one file each in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, pid: int, scratch: Path) -> None:
        """Where the worker cannot be identified (no /proc), nothing is written. A full disk keeps
        no worker from starting: it is only not found should it outlive us."""
        stat = find_stat(pid)
        if stat is None:
            return
        note = Note(pid, stat.start_ticks, _boot_id(), str(scratch))
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._folder / str(pid)).write_bytes(msgspec.json.encode(note))
        except OSError as error:
            log.warning("worker %d is not written down: %s", pid, error)

    def remove(self, pid: int) -> None:
        """It has been waited for."""
        with contextlib.suppress(OSError):
            (self._folder / str(pid)).unlink(missing_ok=True)

    def reap(self) -> int:
        """Kill what is left of an earlier server's workers and forget them; how many processes
        that were. Called with the home's lock, before the first worker starts."""
        num_killed = 0
        for path in self._files():
            with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                note = msgspec.json.decode(path.read_bytes(), type=Note)
                if note.boot_id == _boot_id():
                    num_killed += _kill(note)
            with contextlib.suppress(OSError):
                path.unlink()
        if num_killed:
            log.warning("killed %d processes that a dead server's workers left", num_killed)
        return num_killed

    def _files(self) -> list[Path]:
        try:
            return [path for path in self._folder.iterdir() if path.name.isdigit()]
        except OSError:
            return []


def _kill(note: Note) -> int:
    """The worker itself if it is still that one; of its group, what works in its scratch folder."""
    leader = find_stat(note.pid)
    is_ours = leader is not None and leader.start_ticks == note.start_ticks
    num_killed = 0
    for member in members_of(note.pid):
        # a pid is not given away while a group bears its number, so a leader that is another
        # process now has a group of its own, and its members work elsewhere
        if is_ours or _works_in(member.pid, note.scratch):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(member.pid, signal.SIGKILL)
                num_killed += 1
    return num_killed


def _works_in(pid: int, scratch: str) -> bool:
    """Whether its working folder is the scratch folder, or was before that was deleted."""
    try:
        folder = str((PROC / str(pid) / "cwd").readlink()).removesuffix(" (deleted)")
    except OSError:
        return False
    return folder == scratch or folder.startswith(scratch + "/")


def _boot_id() -> str:
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
