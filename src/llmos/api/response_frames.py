"""The event sequence of one response: `response.created` to `response.completed`, numbered."""

from __future__ import annotations

from typing import Any

from llmos.api.frames import encode_line
from llmos.errors import LLMOSError
from llmos.shapes.items import text_item, text_part
from llmos.shapes.response_object import Facts, response_object
from llmos.shapes.responses import message_id

NOTHING_SEEN = -1
"""`after` of a client that has seen no event."""


class ResponseFrames:
    """Events as bytes. Those up to number `after` are counted, and come out empty: the client has
    them. A response has at most one message, and that one part of text.
    """

    __slots__ = ("_after", "_delta_head", "_item_id", "number")

    def __init__(self, job_id: str, after: int = NOTHING_SEEN) -> None:
        self._item_id = message_id(job_id)
        self._after = after
        self.number = -1
        self._delta_head = b""

    def whole(self, kind: str, facts: Facts) -> bytes:
        """An event that shows the response: created, queued, completed …"""
        return self._event(f"response.{kind}", response=response_object(facts))

    def open_message(self, output_index: int = 0) -> bytes:
        """Before the first text."""
        at = {"output_index": output_index, "content_index": 0}
        head = {"type": "response.output_text.delta", "item_id": self._item_id, **at}
        self._delta_head = b"event: response.output_text.delta\ndata: " + encode_line(head)[:-1]
        item = text_item(self._item_id, "assistant", [], "in_progress")
        return self._event(
            "response.output_item.added", output_index=output_index, item=item
        ) + self._event(
            "response.content_part.added", item_id=self._item_id, **at, part=text_part("")
        )

    def delta(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> bytes:
        """New text."""
        self.number += 1
        if self.number <= self._after:
            return b""
        return (
            self._delta_head
            + b',"logprobs":%s,"sequence_number":%d,"delta":'
            % (encode_line(logprobs or []), self.number)
            + encode_line(text)
            + b"}\n\n"
        )

    def close_message(self, item: dict[str, Any], output_index: int = 0) -> bytes:
        """After the last text: the whole of it, three times, as the standard has it."""
        (part,) = item["content"]
        at = {"item_id": self._item_id, "output_index": output_index, "content_index": 0}
        return (
            self._event(
                "response.output_text.done", **at, text=part["text"], logprobs=part["logprobs"]
            )
            + self._event("response.content_part.done", **at, part=part)
            + self._event("response.output_item.done", output_index=output_index, item=item)
        )

    def open_call(self, item: dict[str, Any], output_index: int) -> bytes:
        """A function is called; its arguments follow."""
        return self._event("response.output_item.added", output_index=output_index, item=item)

    def call_delta(self, item_id: str, arguments: str, output_index: int) -> bytes:
        """More of the arguments."""
        kind = "response.function_call_arguments.delta"
        return self._event(kind, item_id=item_id, output_index=output_index, delta=arguments)

    def close_call(self, item: dict[str, Any], output_index: int) -> bytes:
        """The whole call."""
        said = {"item_id": item["id"], "name": item["name"], "arguments": item["arguments"]}
        return self._event(
            "response.function_call_arguments.done", output_index=output_index, **said
        ) + self._event("response.output_item.done", output_index=output_index, item=item)

    def end(self, facts: Facts) -> bytes:
        """The last event. A response that was cancelled has failed, as its status tells."""
        status = response_object(facts)["status"]
        return self.whole(status if status in ("completed", "incomplete") else "failed", facts)

    def error(self, error: LLMOSError) -> bytes:
        """It cannot be shown to its end, which says nothing about the response itself."""
        self.number = max(self.number, self._after)
        return self._event("error", code=error.code, message=error.message, param=error.param)

    def _event(self, kind: str, **fields: Any) -> bytes:
        self.number += 1
        if self.number <= self._after:
            return b""
        data = encode_line({"type": kind, "sequence_number": self.number, **fields})
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)
