"""What of memory a process that learns keeps for itself between steps: no less and no more.

The C library hands pieces back to the system at once, which clears them page by page before they
are given again: a twentieth of the time of a small model's step. Large pieces, on the other hand,
must not lie among what is kept for the backward pass: of a BERT under LoRA, 2.5 GB were taken for
1.2 GB of activations, the rest being holes between them. And oneDNN keeps what it made for every
size it ever saw, 1024 of them, and room to work with each: hundreds of megabytes where batches
differ in length, which nobody has reserved.
"""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's `mallopt` (malloc.h)."""

KEPT_BYTES = 256 << 20
AHEAD_BYTES = 64 << 20
LARGEST_BYTES = 4 << 20
"""A larger piece is the system's own, and goes back when it is freed."""


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
