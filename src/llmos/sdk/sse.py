"""Server-sent events, decoded from bytes cut anywhere.

Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream". `id` and `retry` are read over:
nothing here reconnects.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from llmos.errors import ProtocolViolation

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """`event` is `message` unless the stream named it."""

    event: str
    data: str


class SSEDecoder:
    """Feed it bytes, take whole events. Holds at most `max_event_bytes` of an unfinished one."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = b""
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that `data` completes. Raises ProtocolViolation over the bound."""
        if self._after_cr and data:
            # the CR ended its line already: an LF right after it belongs to the same line end
            data = data.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = self._after_cr or data.endswith(b"\r")
        *lines, rest = _LINE_END.split(data)
        events = []
        for line in lines:
            found = self._line(self._join(line))
            if found is not None:
                events.append(found)
        if rest:
            self._partial.append(rest)
            self._partial_bytes += len(rest)
        if self._partial_bytes + self._data_bytes > self._max_event_bytes:
            raise ProtocolViolation(f"the server sent an event over {self._max_event_bytes} bytes")
        return events

    def _join(self, end: bytes) -> bytes:
        line = b"".join((*self._partial, end))
        self._partial.clear()
        self._partial_bytes = 0
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        return line

    def _line(self, line: bytes) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(value)
        elif field == b"event":
            self._event = value
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        name = self._event.decode(errors="replace") or "message"
        data = b"\n".join(self._data)
        is_event = bool(self._data)
        self._data.clear()
        self._data_bytes = 0
        self._event = b""
        return ServerSentEvent(name, data.decode(errors="replace")) if is_event else None
