"""The formats by name, and which one a chat template teaches its model."""

from __future__ import annotations

import re
from typing import NamedTuple


class Format(NamedTuple):
    """`markers`: what is special in it, in the order in which a template is searched for it.

    `special`: pieces that some tokenizers have as special tokens, which must be shown then.
    """

    name: str
    markers: tuple[str, ...]
    special: tuple[str, ...] = ()


FORMATS = {
    form.name: form
    for form in (
        Format(
            "deepseek",
            ("<｜tool▁calls▁begin｜>",),
            (
                "<｜tool▁calls▁begin｜>",
                "<｜tool▁call▁begin｜>",
                "<｜tool▁sep｜>",
                "<｜tool▁call▁end｜>",
                "<｜tool▁calls▁end｜>",
            ),
        ),
        Format("mistral", ("[TOOL_CALLS]",), ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")),
        Format("hermes", ("<tool_call>",), ("<tool_call>", "</tool_call>")),
        Format("glaive", ("<functioncall>",), ("<functioncall>",)),
        Format(
            "pythonic",
            ("<|python_start|>", "func_name1(params_name1"),
            ("<|python_start|>", "<|python_end|>", "<|python_tag|>"),
        ),
        Format(
            "llama3",
            ("<|python_tag|>", '{"name": function name, "parameters"'),
            ("<|python_tag|>",),
        ),
    )
}
"""By name."""

_OTHERS = ("<arg_key>", "<function=", "<|channel|>", "<tool_calls>", "functools[")
"""Formats that look like one of these, or like none, and are another."""

_TOOLS = re.compile(r"\btools\b")


def knows_tools(template: str) -> bool:
    """Whether a chat template shows its model the tools there are."""
    return _TOOLS.search(template) is not None


def knows_calls(template: str) -> bool:
    """Whether a chat template writes the calls of earlier answers."""
    return "tool_calls" in template


def find_format(template: str) -> str | None:
    """How the model writes calls, going by its chat template; None where that says nothing."""
    if any(other in template for other in _OTHERS):
        return None
    for form in FORMATS.values():
        if any(marker in template for marker in form.markers):
            return form.name
    return None
