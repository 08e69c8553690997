"""/os/v1/logs: the server's own log, for whoever may look at the system."""

from __future__ import annotations

import asyncio
from contextlib import closing

from llmos.abi.logs import MAX_LINES, Entry, LogCursor, LogEntries
from llmos.abi.principal import Action, Resource
from llmos.api.call import Call, encode_json, watching
from llmos.api.frames import KEEP_ALIVE
from llmos.api.parameters import Count, Flag
from llmos.api.query import Query
from llmos.api.routes.spec import RouteSpec
from llmos.errors import NotFound, QuotaExceeded, StorageError
from llmos.shapes.answers import ErrorAnswer

LINES = Count("lines", "Begin with so many of the last", 50, MAX_LINES, 0)
FOLLOW = Flag("follow", "Server-sent events, one a line, as they come")
QUERY = (LINES, FOLLOW)
_FOLLOWED = "logs"
"""Under which name followers are counted."""


async def show_logs(call: Call) -> LogEntries | None:
    """Its last lines, or with `follow` these and each that comes. It does not pass the gate, which
    keeps no log."""
    _check(call)
    query = Query(call, QUERY)
    num_lines = query[LINES]
    if call.edge.logs is None:
        raise NotFound("this server keeps no log of its own")
    try:
        cursor = call.edge.logs.open()
    except OSError as error:
        raise StorageError(f"the log cannot be read: {error.strerror}") from error
    with closing(cursor):
        if not query[FOLLOW]:
            return LogEntries(await asyncio.to_thread(cursor.last, num_lines))
        followers = call.edge.num_followers
        if followers[_FOLLOWED] >= call.edge.config.max_log_followers:
            raise QuotaExceeded("the log is followed by as many as may", retry_after_s=10.0)
        followers[_FOLLOWED] += 1
        try:
            await _follow(call, cursor, num_lines)
        finally:
            followers[_FOLLOWED] -= 1
    return None


def _check(call: Call) -> None:
    """Raises PermissionDenied."""
    call.edge.authorizer.authorize(call.principal, Action.READ_SYSTEM, Resource("system"))


async def _follow(call: Call, cursor: LogCursor, num_lines: int) -> None:
    """Until the client leaves, the server stops, or the key is no longer good for it, which is
    looked up as often as a silent stream is kept alive."""
    left = asyncio.Event()
    config = call.edge.config
    with watching(call, left.set):
        found = await asyncio.to_thread(cursor.last, num_lines)
        await call.start_sse(error_prefix=b"event: error\ndata: ")
        silent_s = trusted_s = 0.0
        while not left.is_set():
            if found or silent_s >= config.keepalive_comment_s:
                await call.write(b"".join(map(_frame, found)) or KEEP_ALIVE)
                silent_s = 0.0
            try:
                await asyncio.wait_for(left.wait(), config.log_interval_s)
            except TimeoutError:
                silent_s += config.log_interval_s
                trusted_s += config.log_interval_s
                if trusted_s >= config.keepalive_comment_s:
                    call.authenticate()
                    _check(call)
                    trusted_s = 0.0
                found = await asyncio.to_thread(cursor.more)


def _frame(entry: Entry) -> bytes:
    return b"data: %s\n\n" % encode_json(entry)


ROUTES = [
    RouteSpec(
        "GET",
        "/os/v1/logs",
        show_logs,
        "The server's own log; with `follow`, as server-sent events: `llmos logs`.",
        query=QUERY,
        events={"": Entry, "error": ErrorAnswer},
        raises=(NotFound, QuotaExceeded),
    )
]
