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

SNAPSHOTS = [name for name in sorted(DRIVERS) if DRIVERS[name].snapshots]
PARKING = [name for name in sorted(DRIVERS) if DRIVERS[name].parks]


def undeclared(driver: str, verb: str) -> str | None:
    """What stands in the table where a driver's capabilities leave a verb out."""
    if verb == "suspend" and driver not in SNAPSHOTS:
        return "recompute"
    if verb == "park" and driver not in PARKING:
        return "no"
    return None
