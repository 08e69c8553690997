"""What of memory a process that learns keeps for itself between steps: no less and no more.

The C library hands large pieces back to the system at once, which clears them page by page before
they are given again: a twentieth of the time of a small model's step. oneDNN, on the other hand,
keeps what it made for every size it ever saw, 1024 of them, and room to work with each: hundreds of
megabytes where batches differ in length, which nobody has reserved.
"""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's `mallopt` (malloc.h)."""

KEPT_BYTES = 1 << 30
AHEAD_BYTES = 64 << 20
LARGEST_BYTES = 32 << 20
"""The most that glibc takes; what is larger goes back as before."""


def keep_freed() -> bool:
    """From now on. False where the C library is none that can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = (
        (TRIM_THRESHOLD, KEPT_BYTES),
        (TOP_PAD, AHEAD_BYTES),
        (MMAP_THRESHOLD, LARGEST_BYTES),
    )
    taken = [mallopt(name, value) for name, value in settings]
    return all(taken)


NUM_SHAPES = 32
"""Of operations; a step has fewer that go through it, so none is made anew from step to step."""


def keep_few_shapes() -> None:
    """Before the first of them: oneDNN looks once."""
    os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = str(NUM_SHAPES)
