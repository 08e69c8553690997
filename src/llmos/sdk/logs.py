"""The server's own log, from wherever it is: one pure function per call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from llmos.errors import ServerUnreachable
from llmos.sdk.config import ClientConfig
from llmos.sdk.shown import Listed
from llmos.sdk.sse import SSEDecoder
from llmos.sdk.wire import (
    Call,
    Patience,
    Request,
    StreamCall,
    WholeBody,
    decode,
    error_from_envelope,
)

Entry = dict[str, Any]


class _Entries(msgspec.Struct):
    entries: list[Entry]


def show_logs(config: ClientConfig, lines: int = 50) -> Call[Listed[Entry]]:
    """Its last lines, oldest first, without secrets and texts of people. Raises PermissionDenied,
    NotFound."""
    request = Request("GET", f"/os/v1/logs?lines={lines}")
    return Call(request, lambda: WholeBody(_entries, config.max_answer_bytes))


def follow_logs(config: ClientConfig, lines: int = 50) -> StreamCall[Entry]:
    """Its last lines, and each that comes, until one leaves. Raises as `show_logs`,
    QuotaExceeded."""
    request = Request("GET", f"/os/v1/logs?lines={lines}&follow=true", None, Patience.STREAM)
    return StreamCall(request, lambda: EntryParser(config.max_event_bytes))


def _entries(body: bytes) -> Listed[Entry]:
    return Listed(decode(body, _Entries).entries)


class EntryParser:
    """Lines of a followed log; it has no end but the server's."""

    def __init__(self, max_event_bytes: int) -> None:
        self._decoder = SSEDecoder(max_event_bytes)

    def feed(self, data: bytes) -> Iterator[Entry]:
        for event in self._decoder.feed(data):
            found = decode(event.data, dict[str, Any])
            if event.event == "error":
                raise error_from_envelope(found)
            yield found

    def finish(self) -> None:
        raise ServerUnreachable("the server stopped, and its log with it")
