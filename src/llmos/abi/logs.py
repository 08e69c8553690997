"""The seam by which a front end hands out the server's own log."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

Entry = dict[str, Any]
"""A line of it: `time`, `level`, `logger`, `message`, and what else was said with it."""

MAX_LINES = 1000
"""Of the last ones, asked for at once."""


class LogEntries(msgspec.Struct, frozen=True):
    """Lines of the log, oldest first."""

    entries: list[Entry]


class LogCursor(Protocol):
    """A place in the log. Its methods read a file, so they are not for an event loop."""

    def last(self, num_lines: int) -> list[Entry]:
        """The last lines, oldest first; called once, before `more`."""
        ...

    def more(self) -> list[Entry]:
        """What has come since, which may be nothing. Raises ShuttingDown."""
        ...

    def close(self) -> None: ...


class LogSource(Protocol):
    """Everything it gives is fit to leave the machine: no secrets, no prompts, no answers."""

    def open(self) -> LogCursor:
        """Raises OSError."""
        ...
