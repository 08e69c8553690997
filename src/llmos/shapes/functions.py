"""The words that chats had for tools before there were tools: `functions`, `function_call`, and the
role `function`. OpenAI documents them as deprecated; clients still send them.

A call has no id there, so one that is told back gets one by its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmos.shapes.fields import fault
from llmos.shapes.tools import read_list, read_tool

_MODES = ("none", "auto")


def read_functions(value: Any) -> Any:
    """As tools. For a field's validator."""
    return [read_tool(one, str(i)) for i, one in enumerate(read_list(value))]


def read_function_choice(value: Any) -> Any:
    """Of `function_call` of a body: as `read_choice` reads a tool's. For a field's validator."""
    if value in _MODES:
        return value
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise fault("is neither 'none' nor 'auto', nor names a function")
    return f"name:{value['name']}"


def read_said_call(value: Any) -> Any:
    """Of `function_call` in a message: what an earlier answer called. For a field's validator."""
    if not isinstance(value, dict):
        raise fault("must be an object")
    for key in ("name", "arguments"):
        if not isinstance(value.get(key), str):
            raise fault("must be a text", key)
    return {"name": value["name"], "arguments": value["arguments"]}


def as_tools(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages in today's words: a function's answer belongs to the last call before it."""
    made, last = [], "call_0"
    for i, message in enumerate(messages):
        now = dict(message)
        if (call := now.pop("function_call", None)) is not None:
            last = f"call_{i}"
            now["tool_calls"] = [{"id": last, "type": "function", "function": call}]
        if now["role"] == "function":
            now |= {"role": "tool", "tool_call_id": last}
        made.append(now)
    return made
