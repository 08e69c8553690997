"""What a model is told of tools, and what its answer may be with them.

A template that knows tools shows them itself. For one that does not, they are described in words,
and calls are written as Hermes models do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from llmos.abi.inference import ChatPrompt, Grammar
from llmos.drivers.text.grammar import in_lark
from llmos.errors import InvalidRequest, UnsupportedParameter
from llmos.shapes.toolcalls.formats import FORMATS, find_format

MAX_CALLS = 16
"""In one answer that has to call."""

IN_WORDS = "hermes"
"""The format that models are asked for whose template says nothing of tools."""


class ToolPlan(NamedTuple):
    """`form`: how calls are written; `by_template`: the template tells the model. `shown`: special
    tokens that are part of calls. `grammar`: of the whole answer."""

    form: str
    by_template: bool
    shown: list[int]
    grammar: Grammar | None


def plan_tools(
    template: str | None, prompt: ChatPrompt, answer: Grammar | None, special: dict[str, int]
) -> ToolPlan:
    """`template`: that tells of tools, None where none does. `answer`: what it has to be where it
    is no call. `special`: the ids of special tokens by text. Raises UnsupportedParameter."""
    form = prompt.tool_format or (IN_WORDS if template is None else find_format(template))
    if form is None:
        raise UnsupportedParameter(
            "this model's chat template writes calls in a way that is not known here; "
            f"'llmos.tool_format' may name one of {', '.join(sorted(FORMATS))}",
            param="tools",
        )
    shown = [special[piece] for piece in FORMATS[form].special if piece in special]
    grammar = answer
    if prompt.tool_choice != "auto" or answer is not None:
        grammar = _Writer(form, special).grammar(prompt, answer)
    return ToolPlan(form, template is not None, shown, grammar)


class _Writer:
    """Writes a grammar of calls in Lark's form. A special token is named by its number."""

    def __init__(self, form: str, special: dict[str, int]) -> None:
        self._form = form
        self._special = special

    def grammar(self, prompt: ChatPrompt, answer: Grammar | None) -> Grammar:
        """Of calls; where none is demanded, of them or an `answer`."""
        choice, tools = prompt.tool_choice, prompt.tools or []
        if choice.startswith("name:"):
            tools = [t for t in tools if t["function"]["name"] == choice.removeprefix("name:")]
        most = MAX_CALLS if prompt.parallel_tools and len(tools) == len(prompt.tools or []) else 1
        if choice.startswith("name:"):
            most = 1
        lines = self._calls([tool["function"] for tool in tools], most)
        if choice == "auto" and answer is not None:
            lines = ["start: answer | calls", _answer(answer), *lines]
        else:
            lines = ["start: calls", *lines]
        return Grammar("lark", "\n".join(lines))

    def _calls(self, functions: Sequence[dict[str, Any]], most: int) -> list[str]:
        before, between, after = _AROUND[self._form]
        one = " | ".join(f"c{i}" for i in range(len(functions)))
        more = f" ({self._text(between)} call){{0,{most - 1}}}" if most > 1 else ""
        lines = [f"calls: {self._text(before)} call{more} {self._text(after)}", f"call: {one}"]
        for i, function in enumerate(functions):
            lines += self._call(i, function)
        return lines

    def _call(self, number: int, function: dict[str, Any]) -> list[str]:
        name, schema = function["name"], function.get("parameters") or {"type": "object"}
        if self._form == "pythonic":
            return _python_call(number, name, schema)
        head, tail = _CALL[self._form]
        quoted = json.dumps(name) if self._form != "deepseek" else name
        rule = in_lark(schema, lenient=not function.get("strict"))
        return [
            f"c{number}: {self._text(head.replace('NAME', quoted))} a{number} {self._text(tail)}",
            f"a{number}: {rule}",
        ]

    def _text(self, text: str) -> str:
        """A text as terminals, special tokens of this tokenizer apart."""
        parts, rest = [], text
        while rest:
            found = [(rest.find(piece), piece) for piece in self._special if piece in rest]
            at, piece = min(found, default=(len(rest), ""))
            if at:
                parts.append(json.dumps(rest[:at], ensure_ascii=False))
            if piece:
                parts.append(f"<[{self._special[piece]}]>")
            rest = rest[at + len(piece) :]
        return " ".join(parts)


_AROUND = {
    "hermes": ("", "\n", ""),
    "glaive": ("", "\n", ""),
    "mistral": ("[TOOL_CALLS] [", ", ", "]"),
    "llama3": ("", "; ", ""),
    "pythonic": ("[", ", ", "]"),
    "deepseek": ("<｜tool▁calls▁begin｜>", "\n", "<｜tool▁calls▁end｜>"),
}
"""Before all calls, between two, after all."""

_CALL = {
    "hermes": ('<tool_call>\n{"name": NAME, "arguments": ', "}\n</tool_call>"),
    "glaive": ('<functioncall> {"name": NAME, "arguments": ', "}"),
    "mistral": ('{"name": NAME, "arguments": ', "}"),
    "llama3": ('{"name": NAME, "parameters": ', "}"),
    "deepseek": (
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n",
        "\n```<｜tool▁call▁end｜>",
    ),
}
"""Before and after a call's arguments, which are JSON."""


def _answer(answer: Grammar) -> str:
    if answer.kind == "json_schema":
        return "answer: " + in_lark(json.loads(answer.text), lenient=answer.lenient)
    if answer.kind == "regex":
        return f"answer: /{_AS_IT_IS.sub(_escaped, answer.text)}/"
    raise UnsupportedParameter("a grammar does not go together with tools", param="llmos.grammar")


_AS_IT_IS = re.compile(r"\\.|[/\n]", re.DOTALL)


def _escaped(found: re.Match[str]) -> str:
    """What would end a regular expression of Lark's; what is escaped already stays so."""
    return "\\" + {"\n": "n"}.get(found[0][-1], found[0][-1])


def _python_call(number: int, name: str, schema: dict[str, Any]) -> list[str]:
    """`name(key=value, ...)`, required keys first and all of them; values are JSON, whose words
    the reader takes as well."""
    properties, wanted = schema.get("properties") or {}, schema.get("required") or []
    if not isinstance(properties, dict) or not isinstance(wanted, list):
        raise InvalidRequest(f"the parameters of {name} are no schema of an object", param="tools")
    required = [key for key in properties if key in wanted]
    optional = [key for key in properties if key not in required]
    lines, parts = [], []
    for i, key in enumerate([*required, *optional]):
        lead = json.dumps(f"{', ' if i else ''}{key}=", ensure_ascii=False)
        part = f"{lead} v{number}x{i}"
        parts.append(part if key in required else f"({part})?")
        lines.append(f"v{number}x{i}: " + in_lark(properties[key], lenient=True))
    if optional and not required:  # a comma would come first
        parts = parts[:1]
        lines = lines[:1]
    begin = json.dumps(f"{name}(")
    return [f'c{number}: {begin} {" ".join(parts)} ")"', *lines]


def in_words(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages for a template that knows neither tools nor calls nor what they said."""
    made = [_in_words(message) for message in messages]
    if not tools:
        return made
    told = _INTRODUCTION.format(tools="\n".join(json.dumps(t, ensure_ascii=False) for t in tools))
    if made and made[0].get("role") == "system":
        return [{**made[0], "content": f"{made[0].get('content') or ''}\n\n{told}"}, *made[1:]]
    return [{"role": "system", "content": told}, *made]


def _in_words(message: dict[str, Any]) -> dict[str, Any]:
    if message.get("role") == "tool":
        said = message.get("content") or ""
        return {"role": "user", "content": f"<tool_response>\n{said}\n</tool_response>"}
    if not message.get("tool_calls"):
        return message
    calls = "\n".join(_written(call) for call in message["tool_calls"])
    said = message.get("content") or ""
    return {"role": "assistant", "content": f"{said}\n{calls}" if said else calls}


def _written(call: dict[str, Any]) -> str:
    function = call["function"]
    name = json.dumps(function["name"], ensure_ascii=False)
    arguments = function["arguments"] or "{}"
    return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'


_INTRODUCTION = """\
You may call one or more functions to assist with the user query. These are their signatures:
<tools>
{tools}
</tools>
For each call, return a JSON object with the function's name and arguments:
<tool_call>
{{"name": "NAME", "arguments": {{"ARGUMENT": "VALUE"}}}}
</tool_call>"""
