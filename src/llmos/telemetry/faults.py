"""Crash points: named places on the durable write paths where a test may kill, fail or stall us.

In production `reached` is one test of a global. `make storm` and tests install a hook, which gets
the point's name and may end the process, raise an OSError, or wait. Names are
`area.operation.place`; what has happened before a point is in its line below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

POINTS: dict[str, str] = {
    "database.group.begun": "a transaction is open, nothing is in it yet",
    "database.group.before_commit": "every write of the group is made, none is durable",
    "database.group.after_commit": "all are durable, no caller has been answered",
    "database.checkpoint.before": "the write-ahead log is about to be copied into the database",
    "database.checkpoint.after": "the write-ahead log has been copied into the database",
    "database.migrate.before_commit": "every statement of the upgrade has run, none is durable",
    "database.migrate.after_commit": "the upgrade is durable, the server run is not counted yet",
}
"""Every point, in the words of what is true when it is reached. A test holds them to their uses."""

Hook = Callable[[str], None]

_hook: Hook | None = None


def reached(point: str) -> None:
    """Tell the installed hook, if any. What the hook raises is raised here."""
    if _hook is not None:
        _hook(point)


def install(hook: Hook | None) -> None:
    """Set the hook of this process; None removes it. For tests and `make storm` only."""
    global _hook  # noqa: PLW0603  one process, one storm
    _hook = hook


@contextmanager
def installed(hook: Hook) -> Iterator[None]:
    """`install` for the length of a block."""
    install(hook)
    try:
        yield
    finally:
        install(None)
