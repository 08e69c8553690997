"""Pages of host memory: room that costs nothing until it is touched, and pages of mapped files.

Linux does all of it; elsewhere room is zeroed at once, and no page is known to be a file's.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import mmap
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from llmos.drivers.resident import page_bytes

POPULATE_READ = 22
"""`MADV_POPULATE_READ` of Linux 5.14: make pages readable now, all at once."""

DONT_NEED = 4
"""`MADV_DONTNEED`: drop pages; a file's are read again from it when they are wanted."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt` (malloc.h)."""

_APART_BYTES = 64 << 10
_LARGEST_IN_HEAP_BYTES = 32 << 20
"""`DEFAULT_MMAP_THRESHOLD_MAX` of glibc on machines of 64 bits."""

_RANGE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+\s*(.*)")
_ALIGN_BYTES = 64


class Arena:
    """Zeroed tensors in one anonymous mapping. Gone, with its pages, when no tensor is left."""

    def __init__(self, sizes: Iterable[tuple[int, ...]], dtype: torch.dtype) -> None:
        counts = [(size, torch.Size(size).numel()) for size in sizes]
        starts, end = [], 0
        for _, count in counts:
            starts.append(end)
            end += -(-count * dtype.itemsize // _ALIGN_BYTES) * _ALIGN_BYTES
        self.size_bytes = -(-max(1, end) // page_bytes()) * page_bytes()
        room = _map_lazily(self.size_bytes)
        self.tensors = [
            torch.frombuffer(room, dtype=dtype, count=count, offset=start).view(size)
            if count
            else torch.empty(size, dtype=dtype)
            for start, (size, count) in zip(starts, counts, strict=True)
        ]


def _map_lazily(size_bytes: int) -> mmap.mmap:
    if sys.platform != "linux":
        return mmap.mmap(-1, size_bytes)
    room = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # a huge page would hold 2 MB for the first token of each head of a slot
    with contextlib.suppress(OSError):  # a kernel without huge pages
        room.madvise(mmap.MADV_NOHUGEPAGE)
    return room


@dataclasses.dataclass(frozen=True, slots=True)
class FileRange:
    """Addresses that are a private mapping of a file, page-aligned."""

    begin: int
    end: int
    path: str

    @property
    def size_bytes(self) -> int:
        return self.end - self.begin


def file_ranges(folder: Path) -> list[FileRange]:
    """The mappings of this process onto files of a folder."""
    own = f"{folder.resolve()}/"
    try:
        lines = Path("/proc/self/maps").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    found = (_RANGE.fullmatch(line) for line in lines if own in line)
    return [
        FileRange(int(m[1], 16), int(m[2], 16), m[4])
        for m in found
        if m is not None and m[4].startswith(own)
    ]


def counted(ranges: Iterable[FileRange]) -> dict[FileRange, tuple[int, int]]:
    """Of each range the bytes resident, and how many of those are not the file's any more.

    Takes milliseconds: the system walks all pages of the process.
    """
    wanted = {f"{r.begin:x}-{r.end:x}": r for r in ranges}
    found: dict[FileRange, tuple[int, int]] = {}
    current: FileRange | None = None
    resident = 0
    with Path("/proc/self/smaps").open("rb") as file:
        for line in file:
            name, _, rest = line.partition(b" ")
            if not name.endswith(b":"):
                current = wanted.get(name.decode("ascii"))
            elif current is not None and name == b"Rss:":
                resident = int(rest.split()[0]) << 10
            elif current is not None and name == b"Anonymous:":
                found[current] = resident, int(rest.split()[0]) << 10
    return found


def drop(ranges: Iterable[FileRange]) -> None:
    """Take the pages out of this process. Their contents must be those of the file. Raises OSError.

    They stay in the system's cache of the file for as long as it has room.
    """
    for r in ranges:
        _advise(r, DONT_NEED)


def populate(ranges: Iterable[FileRange]) -> None:
    """Have all pages at hand. Raises OSError: the file has not got them any more."""
    for r in ranges:
        try:
            _advise(r, POPULATE_READ)
        except OSError as error:
            if error.errno != 22:  # EINVAL: a kernel that does not know the advice
                raise
            _touch(r)


def _touch(r: FileRange) -> None:
    pages = (ctypes.c_ubyte * r.size_bytes).from_address(r.begin)
    torch.frombuffer(pages, dtype=torch.uint8)[:: page_bytes()].sum()


def _advise(r: FileRange, advice: int) -> None:
    libc = _libc()
    if libc is None:
        return
    if libc.madvise(ctypes.c_void_p(r.begin), ctypes.c_size_t(r.size_bytes), advice):
        number = ctypes.get_errno()
        raise OSError(number, f"madvise {advice}", r.path)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Meanwhile, what is allocated and not small is pages of its own, which freeing gives back.

    Weights that are read by several threads lie in as many heaps of the C library otherwise, and
    those keep tens of megabytes for themselves. Its own rule for what is a mapping ends with the
    first `mallopt`; what that rule would come to in the end is set after.
    """
    mallopt: Callable[[int, int], int] | None = getattr(_libc(), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, _APART_BYTES)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _LARGEST_IN_HEAP_BYTES)
        mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_IN_HEAP_BYTES)


def trim() -> None:
    """Give back to the system, and to the device, what was freed."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    libc = _libc()
    trimmer: Callable[[int], Any] | None = getattr(libc, "malloc_trim", None)
    if trimmer is not None:
        trimmer(0)


@functools.cache
def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
