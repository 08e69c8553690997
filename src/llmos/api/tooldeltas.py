"""Calls of tools as chunks of a chat tell them."""

from __future__ import annotations

from typing import Any

from llmos.shapes.toolcalls.stream import Said, ToolReader, call_id


class ToolDeltas:
    """One answer's text in, `delta` objects out."""

    def __init__(
        self, reader: ToolReader, form: str, request_id: str, *, as_function: bool = False
    ) -> None:
        self._reader = reader
        self._form = form
        self._request_id = request_id
        self.as_function = as_function

    @property
    def has_called(self) -> bool:
        """Whether there was a call."""
        return self._reader.num_calls > 0

    def push(self, text: str) -> dict[str, Any]:
        """What is certain now; empty when that is nothing."""
        return self._delta(self._reader.push(text))

    def finish(self) -> dict[str, Any]:
        """The rest."""
        return self._delta(self._reader.finish())

    def _delta(self, said: Said) -> dict[str, Any]:
        made: dict[str, Any] = {"content": said.text} if said.text else {}
        calls = []
        for delta in said.calls:
            function: dict[str, Any] = {"arguments": delta.arguments}
            head: dict[str, Any] = {"index": delta.index}
            if delta.name is not None:
                head["id"] = call_id(self._request_id, delta.index, self._form)
                head["type"] = "function"
                function = {"name": delta.name, **function}
            if self.as_function:
                made["function_call"] = function
                continue
            calls.append({**head, "function": function})
        if calls:
            made["tool_calls"] = calls
        return made
