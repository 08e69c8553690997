"""Processes by a part of their id, as people copy them from a screen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmos.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from llmos.sdk import Client

FULL_ID_CHARS = 36
MATCHES_NAMED = 5


def find_process(client: Client, given: str, *, live: bool = False) -> str:
    """The one id that is `given`, or begins or ends with it (`…` and the prefix may be missing).

    `live`: among the live ones alone. Raises NotFound, InvalidRequest naming the matches.
    """
    return _find(
        given,
        "live process" if live else "process",
        lambda: [p.process_id for p in client.processes.list(state="live" if live else ())],
    )


def find_job(client: Client, given: str) -> str:
    """As `find_process`, among the newest jobs, ended ones too."""
    return _find(given, "job", lambda: [j.job_id for j in client.jobs.list(limit=1000).jobs])


def _find(given: str, what: str, names: Callable[[], list[str]]) -> str:
    part = given.strip().strip("….")
    if not part:
        raise InvalidRequest("an id is empty", param="ID")
    if len(part) >= FULL_ID_CHARS:
        return part
    known = names()
    if part in known:
        return part
    matches = [name for name in known if _matches(name, part)]
    if not matches:
        raise NotFound(f"no {what} is called {part!r}", param="ID")
    if len(matches) > 1:
        shown = ", ".join(matches[:MATCHES_NAMED])
        more = f" and {len(matches) - MATCHES_NAMED} more" if len(matches) > MATCHES_NAMED else ""
        raise InvalidRequest(f"{part!r} could be {shown}{more}", param="ID")
    return matches[0]


def _matches(name: str, part: str) -> bool:
    return name.startswith(part) or name.endswith(part) or name.partition("_")[2].startswith(part)


def short(process_id: str) -> str:
    """The end of an id: its beginning is the time, which neighbours share."""
    return process_id[-8:]
