"""The items of one response as events: its message, and the calls it makes."""

from __future__ import annotations

from typing import Any

from llmos.abi.events import Tokens
from llmos.api.response_frames import ResponseFrames
from llmos.shapes.items import call_item
from llmos.shapes.logprobs import token_logprobs
from llmos.shapes.responses import function_id
from llmos.shapes.toolcalls.stream import CallDelta, Said, Wanted, call_id


class Output:
    """Where calls are looked for, an item begins with what is in it; otherwise there is one
    message, from the start."""

    def __init__(self, frames: ResponseFrames, job_id: str, form: str, wanted: Wanted) -> None:
        self._frames = frames
        self._job_id = job_id
        self._form = form
        self._reader = wanted.reader(form)
        self._message_at: int | None = None
        self._calls_at: list[int] = []

    def opening(self) -> bytes:
        """Before anything was said."""
        return b"" if self._reader is not None else self._open_message()

    def push(self, event: Tokens) -> bytes:
        """More of the answer."""
        logprobs = None if event.logprobs is None else token_logprobs(event.logprobs)
        if self._reader is None:
            if not event.text and not logprobs:
                return b""
            return self._frames.delta(event.text, logprobs)
        return self._said(self._reader.push(event.text), logprobs)

    def finish(self, items: list[dict[str, Any]]) -> bytes:
        """The rest, and every item as it is in the whole."""
        out = b""
        if self._reader is not None:
            out = self._said(self._reader.finish(), None)
        calls_at = iter(self._calls_at)
        for item in items:
            if item["type"] == "function_call":
                out += self._frames.close_call(item, next(calls_at))
                continue
            if self._message_at is None:
                out += self._open_message()
            out += self._frames.close_message(item, self._message_at or 0)
        return out

    def _open_message(self) -> bytes:
        self._message_at = len(self._calls_at)
        return self._frames.open_message(self._message_at)

    def _said(self, said: Said, logprobs: list[dict[str, Any]] | None) -> bytes:
        assert self._reader is not None
        before = self._reader.num_before if said.text and self._message_at is None else 0
        out = b"".join([self._call(delta) for delta in said.calls if delta.index < before])
        if said.text:
            if self._message_at is None:
                out += self._open_message()
            out += self._frames.delta(said.text, logprobs)
        return out + b"".join([self._call(delta) for delta in said.calls if delta.index >= before])

    def _call(self, delta: CallDelta) -> bytes:
        out, item_id = b"", function_id(self._job_id, delta.index)
        if delta.name is not None:
            at = len(self._calls_at) + (self._message_at is not None)
            self._calls_at.append(at)
            name = call_id(self._job_id, delta.index, self._form)
            item = call_item(item_id, name, delta.name, "", "in_progress")
            out = self._frames.open_call(item, at)
        if delta.arguments:
            out += self._frames.call_delta(item_id, delta.arguments, self._calls_at[delta.index])
        return out
