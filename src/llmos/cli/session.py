"""A client for the length of one command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmos.sdk import Client


@contextlib.contextmanager
def connect(*, start: bool = False) -> Iterator[Client]:
    """The server that `locate` finds. With `start`, one is started for the home if none answers.

    Raises ServerUnreachable when a start fails; without `start` the first call does.
    """
    from llmos.sdk import Client

    if start:
        from llmos.cli.background import ensure_server

        ensure_server()
    with Client() as client:
        yield client
