"""The columns of the table of drivers: what a driver is asked to do."""

from __future__ import annotations

from llmos.drivers.catalog import DRIVERS

VERBS = (
    "load",
    "prepare",
    "submit",
    "batch",
    "pause",
    "abort",
    "suspend",
    "recompute",
    "park",
    "crash",
    "memory",
    "capabilities",
    "bad input",
)

ON_TORCH = "native on torch"
ITEM_DRIVERS = ("encoder", "onnx")
"""Those that answer item by item: `test_items.py` is theirs."""

SUBJECTS = sorted([*(name for name in DRIVERS if name not in ITEM_DRIVERS), ON_TORCH])
"""Every driver that generates, and of the native one both engines: `native` is on our kernels."""


def driver_of(subject: str) -> str:
    """The driver that a subject is one of."""
    return "native" if subject == ON_TORCH else subject


SNAPSHOTS = [name for name in SUBJECTS if DRIVERS[driver_of(name)].snapshots]
PARKING = [name for name in SUBJECTS if DRIVERS[driver_of(name)].parks]


def undeclared(driver: str, verb: str) -> str | None:
    """What stands in the table where a driver's capabilities leave a verb out."""
    if verb == "suspend" and driver not in SNAPSHOTS:
        return "recompute"
    if verb == "park" and driver not in PARKING:
        return "no"
    return None
