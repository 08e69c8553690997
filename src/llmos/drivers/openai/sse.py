"""Server-sent events, decoded from bytes cut anywhere, for what a remote sends.

Source: WHATWG HTML, section 9.2.6. Names of events, ids and `retry` are read over: OpenAI's streams
have data alone.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class TooLong(Exception):
    """An event is over the bound."""


class DataDecoder:
    """Feed it bytes, take the data of whole events. Holds at most `max_bytes` of one."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._num_bytes = 0
        self._at_start = True

    def feed(self, data: bytes) -> list[bytes]:
        """The data that these bytes complete. Raises TooLong."""
        if not (self._at_start or b"\n" in data or b"\r" in data or self._rest.endswith(b"\r")):
            self._rest += data  # more of a line: what was there already is not looked at again
            self._check()
            return []
        text = bytes(self._rest + data)
        held = b""
        if text.endswith(b"\r"):  # an LF may follow, and belong to the same line end
            text, held = text[:-1], b"\r"
        if self._at_start and text:
            if len(text) < len(_BOM) and _BOM.startswith(text):
                self._rest = bytearray(text + held)
                return []
            self._at_start = False
            text = text.removeprefix(_BOM)
        *lines, rest = _LINE_END.split(text)
        self._rest = bytearray(rest + held)
        found = [whole for line in lines if (whole := self._line(line)) is not None]
        self._check()
        return found

    def _check(self) -> None:
        if len(self._rest) + self._num_bytes > self._max_bytes:
            raise TooLong

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            data, self._data, self._num_bytes = self._data, [], 0
            return b"\n".join(data) if data else None
        field, _, value = line.partition(b":")
        if field == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._num_bytes += len(value)
            if self._num_bytes > self._max_bytes:
                raise TooLong
        return None
