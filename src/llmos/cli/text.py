"""Text for a terminal: nothing a model or server sent may act on it; numbers a person reads."""

from __future__ import annotations

import time

from llmos.sdk.draw.columns import fit, narrowed, one_line, table, visible

__all__ = [
    "age",
    "count",
    "fit",
    "narrowed",
    "one_line",
    "seconds",
    "size",
    "table",
    "visible",
]

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def size(num_bytes: float | None) -> str:
    """Bytes in decimal units: `1.2 MB`."""
    if num_bytes is None:
        return "-"
    rank = 0
    while num_bytes >= 999.5 and rank < len(_SIZES) - 1:
        num_bytes /= 1000
        rank += 1
    number = f"{num_bytes:.0f}" if rank == 0 or num_bytes >= 99.95 else f"{num_bytes:.1f}"
    return f"{number} {_SIZES[rank]}"


def count(number: int) -> str:
    """A number of parameters or tokens: `260 k`, `1.2 G`."""
    if number < 1000:
        return str(number)
    return size(number).replace("kB", "k").removesuffix("B")


def age(then_ns: int | None, now_ns: int | None = None) -> str:
    """How long ago, in its largest unit: `3 min`."""
    if then_ns is None:
        return "-"
    seconds = max(0, ((time.time_ns() if now_ns is None else now_ns) - then_ns) // 1_000_000_000)
    for length, name in _AGES:
        if seconds >= length:
            return f"{seconds // length} {name}"
    return "0 s"


def seconds(duration_s: float | None) -> str:
    """A duration: `0.4 s`, `37 s`, `12 min`."""
    if duration_s is None:
        return "-"
    if duration_s < 9.95:
        return f"{duration_s:.1f} s"
    return age(0, int(duration_s * 1_000_000_000))
