"""Calls of tools as models of each format write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Calls = Sequence[dict[str, Any]]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _hermes(calls: Calls) -> str:
    return "\n".join(f"<tool_call>\n{_json(call)}\n</tool_call>" for call in calls)


def _glaive(calls: Calls) -> str:
    made = []
    for call in calls:
        arguments = _json(call["arguments"]).replace("'", "\\'")
        name = _json(call["name"])
        made.append(f'<functioncall> {{"name": {name}, "arguments": \'{arguments}\'}} ')
    return "<|endoftext|>".join(made)


def _mistral(calls: Calls) -> str:
    return "[TOOL_CALLS] " + _json(list(calls))


def _llama3(calls: Calls) -> str:
    return "; ".join(_json({"name": c["name"], "parameters": c["arguments"]}) for c in calls)


def _pythonic(calls: Calls) -> str:
    made = [
        f"{call['name']}({', '.join(f'{k}={v!r}' for k, v in call['arguments'].items())})"
        for call in calls
    ]
    return f"[{', '.join(made)}]"


def _deepseek(calls: Calls) -> str:
    made = [
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call['name']}\n"
        f"```json\n{_json(call['arguments'])}\n```<｜tool▁call▁end｜>"
        for call in calls
    ]
    return "<｜tool▁calls▁begin｜>" + "\n".join(made) + "<｜tool▁calls▁end｜>"


WRITERS = {
    "hermes": _hermes,
    "glaive": _glaive,
    "mistral": _mistral,
    "llama3": _llama3,
    "pythonic": _pythonic,
    "deepseek": _deepseek,
}
UNMARKED = ("llama3", "pythonic")
"""Formats whose calls are the whole of an answer."""
