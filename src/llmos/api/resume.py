"""Going on with a broken stream: event ids out, `Last-Event-ID` in.

An id is `REQUEST:N`, N counting the stream's events from 1. Source: WHATWG HTML, section 9.2.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from llmos.abi.events import Finished, Tokens
from llmos.abi.syscall import Accepted
from llmos.api.call import Call
from llmos.api.frames import Frames
from llmos.api.parameters import Text
from llmos.errors import InvalidRequest
from llmos.shapes.options import InferenceBody

LAST_EVENT_ID = Text("Last-Event-ID", "Go on with a broken stream after this event of it")
_ID = re.compile(r"(req_[0-9a-f]{32}):([0-9]{1,12})")


class ResumePoint(NamedTuple):
    """After event `after` of a request's stream."""

    request_id: str
    after: int


def resume_point(call: Call, body: InferenceBody) -> ResumePoint | None:
    """What the client's `Last-Event-ID` asks for, if it sent one. Raises InvalidRequest."""
    given = call.headers.get(b"last-event-id")
    if not given:
        return None
    if not body.stream:
        raise InvalidRequest("'Last-Event-ID' goes on with a stream only.", param="stream")
    return parse_id(given.decode("latin-1"))


def parse_id(text: str) -> ResumePoint:
    """Raises InvalidRequest for what is no id of ours."""
    match = _ID.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(
            "'Last-Event-ID' is not the id of an event of this server.", param="Last-Event-ID"
        )
    return ResumePoint(match[1], int(match[2]))


class NumberedFrames(Frames):
    """Frames whose events have ids. What shows nothing is counted too."""

    __slots__ = ("_id", "_number", "_seen")

    def __init__(self, accepted: Accepted, index: int, **options: Any) -> None:
        super().__init__(accepted, index, **options)
        self._id = b"id: " + accepted.request_id.encode() + b":"
        self._number = accepted.after
        self._seen = 0
        if self._number:
            self.opening = b""

    def skip_to(self, number: int) -> None:
        """Events up to this one are read, and not written again."""
        self._seen = number
        if number:
            self.opening = b""

    def delta(self, event: Tokens) -> bytes:
        made = super().delta(event)
        self._number += 1
        if self._number <= self._seen:
            return b""
        return self._id + b"%d\n" % self._number + made if made else b""

    def finish(self, event: Finished, llmos: dict[str, Any]) -> bytes:
        self._number += 1
        return self._id + b"%d\n" % self._number + super().finish(event, llmos)
