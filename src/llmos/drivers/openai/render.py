"""A message's parts as one text: what a model that writes all of it into its answer would write.

Thoughts come between `<think>` and `</think>`, calls of tools as Hermes and Qwen write them:
`<tool_call>{"name": ..., "arguments": ...}</tool_call>`.
"""

from __future__ import annotations

import json
from typing import Any

THINK, UNTHINK = "<think>\n", "\n</think>\n\n"
CALL, UNCALL = "<tool_call>\n", "\n</tool_call>"


class Rendering:
    """Of the deltas of one message, in the order in which they come."""

    def __init__(self) -> None:
        self._thinks = False
        self._call: int | None = None
        self._has_arguments = False

    def take(self, delta: dict[str, Any]) -> str:
        """The text of one delta, or of a whole message."""
        made = []
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            made.append(thought if self._thinks else self._shut() + THINK + thought)
            self._thinks = True
        for part in (delta.get("content"), delta.get("refusal")):
            if isinstance(part, str) and part:
                made += [self._shut(), part]
        calls = delta.get("tool_calls")
        for number, call in enumerate(calls if isinstance(calls, list) else ()):
            if isinstance(call, dict):
                made.append(self._take_call(call, call.get("index", number)))
        return "".join(made)

    def close(self) -> str:
        """What is still open ends."""
        return self._shut()

    def _take_call(self, call: dict[str, Any], index: int) -> str:
        function = call.get("function")
        if not isinstance(function, dict):
            return ""
        made = ""
        if index != self._call:
            made = self._shut() + CALL + '{"name": ' + json.dumps(function.get("name") or "")
            self._call, self._has_arguments = index, False
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments:
            made += arguments if self._has_arguments else ', "arguments": ' + arguments
            self._has_arguments = True
        return made

    def _shut(self) -> str:
        made = ""
        if self._thinks:
            made, self._thinks = UNTHINK, False
        if self._call is not None:
            made += ("" if self._has_arguments else ', "arguments": {}') + "}" + UNCALL
            self._call = None
        return made
