"""A parser per format: from a text to what of it is answer, and what are calls.

What is no call after all, or one without a name, stays text. Of a call that breaks off, what there
was of its arguments is told. Where nothing marks a call, only the names of known tools make one.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmos.shapes.toolcalls.reader import Arguments, Begin, Parse, Reader, Text, whole

Names = frozenset[str]
Parser = Callable[[Reader, Names], Parse[None]]

ANY: Names = frozenset()
"""Marked calls may be of whatever the model says."""

_ARGUMENTS = ("arguments", "parameters")
_SEPARATORS = (";", ",")


def _after(marker: str, inner: Callable[[Reader], Parse[bool]]) -> Parser:
    """Text, and what `inner` reads after each marker; where that is no call, text again."""

    def parse(reader: Reader, _: Names) -> Parse[None]:
        yield from _marked(reader, (marker,), inner)

    return parse


def _marked(
    reader: Reader, markers: tuple[str, ...], inner: Callable[[Reader], Parse[bool]]
) -> Parse[None]:
    while (found := (yield from reader.say_until(() if reader.is_tired else markers))) is not None:
        marker, space = found
        reader.mark()
        if (yield from inner(reader)):
            reader.keep()
            yield from reader.skip_space()
        else:
            reader.back()
            reader.keep()
            yield Text(space + marker)


@dataclass(slots=True)
class _Members:
    """Of a call's object: its name, arguments that came before it, whether there were any."""

    name: str | None = None
    early: str | None = None
    has_arguments: bool = False


def _call(reader: Reader, names: Names = ANY) -> Parse[bool]:
    """An object with a name and arguments, in any order. False: nothing was found so far."""
    if not (yield from reader.skip_space()) or not (yield from reader.take("{")):
        return False
    found, goes_on = _Members(), True
    while goes_on and (yield from reader.skip_space()) == '"':
        key = yield from reader.string()
        yield from reader.skip_space()
        if key is None or not (yield from reader.take(":")):
            break
        goes_on = yield from _member(reader, key, found, names)
        goes_on = goes_on and (yield from reader.skip_space()) == "," and reader.skip(1)
    if not found.name:
        return False
    if not found.has_arguments:
        yield Arguments("{}")
    yield from reader.take("}")
    return True


def _member(reader: Reader, key: str, found: _Members, names: Names) -> Parse[bool]:
    """One value of a call's object. False: the object cannot be read further."""
    if key == "name" and found.name is None:
        yield from reader.skip_space()
        name = yield from reader.string()
        if not name or (names and name not in names):
            return False
        found.name = name
        yield Begin(name)
        if found.early is not None:
            yield Arguments(found.early)
        return True
    if key in _ARGUMENTS and not found.has_arguments:
        found.has_arguments = True
        if found.name is not None:
            return (yield from _arguments(reader))
        found.early, is_whole = yield from whole(_arguments(reader))
        return bool(is_whole)
    _, is_whole = yield from whole(reader.value())
    return bool(is_whole)


def _arguments(reader: Reader) -> Parse[bool]:
    """An object, or one written as a string: in double quotes, or as glaive has it in single."""
    first = yield from reader.skip_space()
    if first == '"':
        text = yield from reader.string()
        yield Arguments(text or "")
        return text is not None
    if first != "'":
        return (yield from reader.value())
    reader.at += 1
    text, is_whole = yield from whole(reader.value())
    yield Arguments(text.replace("\\'", "'"))
    yield from reader.skip_space()
    return is_whole and (yield from reader.take("'"))


def _hermes(reader: Reader) -> Parse[bool]:
    if not (yield from _call(reader)):
        return False
    yield from reader.skip_space()
    yield from reader.take("</tool_call>")
    return True


def _glaive(reader: Reader) -> Parse[bool]:
    if not (yield from _call(reader)):
        return False
    yield from reader.skip_space()
    yield from reader.take("<|endoftext|>")
    return True


def _mistral(reader: Reader) -> Parse[bool]:
    """A list of objects, as at first, or a name with its arguments, as from version 11 on."""
    first = yield from reader.skip_space()
    if first == "{":
        return (yield from _call(reader))
    if first == "[":
        reader.at += 1
        return (yield from _listed(reader))
    name = yield from reader.until(("[CALL_ID]", "[ARGS]", "{"))
    if not name or not name.strip():
        return False
    if (yield from reader.take("[CALL_ID]")) and (yield from reader.until(("[ARGS]", "{"))) is None:
        return False
    yield from reader.take("[ARGS]")
    yield Begin(name.strip())
    yield from reader.value()
    return True


def _listed(reader: Reader) -> Parse[bool]:
    found = False
    while (yield from _call(reader)):
        found = True
        if (yield from reader.skip_space()) != ",":
            break
        reader.at += 1
    if found and not (yield from reader.take("]")):
        yield from _drop_if_cut(reader)
    return found


def _drop_if_cut(reader: Reader) -> Parse[None]:
    """Of a call that the text's end cut before it had a name, there is nothing to tell."""
    if reader.is_closed:
        reader.skip(len(reader.text) - reader.at)
    yield from ()


def _deepseek(reader: Reader) -> Parse[bool]:
    found = False
    while True:
        yield from reader.skip_space()
        yield from reader.take("<｜tool▁call▁begin｜>")
        name = yield from reader.until(("<｜tool▁sep｜>",))
        if name is None:
            if found:
                yield from _drop_if_cut(reader)
            return found
        reader.at += len("<｜tool▁sep｜>")
        is_fenced = name.strip() == "function"  # V3 and R1; from V3.1 on it is the name
        if is_fenced:
            name = yield from reader.until(("\n",))
        if name is None or not name.strip():
            if found:
                yield from _drop_if_cut(reader)
            return found
        found = True
        yield Begin(name.strip())
        if is_fenced:
            yield from reader.skip_space()
            yield from reader.take("```json")
        is_whole = yield from reader.value()
        if is_fenced and is_whole:
            yield from reader.skip_space()
            yield from reader.take("```")
        yield from reader.skip_space()
        yield from reader.take("<｜tool▁call▁end｜>")
        yield from reader.skip_space()
        if (yield from reader.take("<｜tool▁calls▁end｜>")) or not is_whole:
            return True
        if (yield from reader.peek(len("<｜tool▁call▁begin｜>"))) != "<｜tool▁call▁begin｜>":
            return True


def _llama3(reader: Reader, names: Names) -> Parse[None]:
    """Objects, one after the other, which nothing has to mark; then nothing but text."""
    reader.mark()
    found = False
    while True:
        yield from reader.skip_space()
        yield from reader.take("<|python_tag|>")
        if not (yield from _call(reader, names)):
            break
        found = True
        yield from reader.skip_space()
        reader.mark()
        if (yield from reader.peek(1)) in _SEPARATORS:
            reader.at += 1
    reader.back()
    reader.keep()
    if found:
        yield from reader.skip_space()
        yield from reader.say_until(("<|python_tag|>",))
        return
    yield from _marked(reader, ("<|python_tag|>",), lambda r: _call(r, names))


def _pythonic(reader: Reader, names: Names) -> Parse[None]:
    """A list of calls as Python writes them, first of all; then nothing but text."""
    reader.mark()
    yield from reader.skip_space()
    (yield from reader.take("<|python_start|>")) or (yield from reader.take("<|python_tag|>"))
    yield from reader.skip_space()
    found = False
    if (yield from reader.take("[")):
        found = yield from _python_calls(reader, names)
    if not found:
        reader.back()
    else:
        yield from reader.skip_space()
        yield from reader.take("<|python_end|>")
        yield from reader.skip_space()
    reader.keep()
    while (yield from reader.say_until(("<|python_end|>",))) is not None:
        pass


def _python_calls(reader: Reader, names: Names) -> Parse[bool]:
    found = False
    while True:
        yield from reader.skip_space()
        name = yield from reader.until(("(",))
        if name is None or name.strip() not in names:
            return found
        found = True
        reader.at += 1
        yield Begin(name.strip())
        is_whole = yield from _python_arguments(reader)
        if not is_whole or (yield from reader.skip_space()) != ",":
            break
        reader.at += 1
    yield from reader.skip_space()
    yield from reader.take("]")
    return True


def _python_arguments(reader: Reader) -> Parse[bool]:
    """`key=literal, ...)` as an object. False: it broke off."""
    yield Arguments("{")
    is_first, is_whole = True, True
    while is_whole and (yield from reader.skip_space()) != ")":
        key = yield from reader.until(("=", ")"))
        if key is None or not (yield from reader.take("=")):
            is_whole = False
            break
        source, end = yield from _literal(reader)
        made = _to_json(source)
        if made is None:
            is_whole = False
            break
        yield Arguments(("" if is_first else ", ") + json.dumps(key.strip()) + ": " + made)
        is_first = False
        if end == ",":
            reader.at += 1
        is_whole = end != ""
    yield Arguments("}")
    return is_whole and (yield from reader.take(")"))


def _literal(reader: Reader) -> Parse[tuple[str, str]]:
    """The source of a value, and what ends it, which is not taken: `,` `)` or the text's end."""
    depth, quote, escaped, made = 0, "", False, ""
    while True:
        begin = reader.at
        while reader.at < len(reader.text):
            char = reader.text[reader.at]
            if escaped:
                escaped = False
            elif quote:
                escaped = char == "\\"
                quote = "" if char == quote else quote
            elif char in "\"'":
                quote = char
            elif char in "([{":
                depth += 1
            elif depth and char in ")]}":
                depth -= 1
            elif not depth and char in ",)":
                return made + reader.text[begin : reader.at], char
            reader.at += 1
        made += reader.text[begin:]
        if reader.is_closed:
            return made, ""
        yield None


_WORDS = {"true": True, "false": False, "null": None}


def _to_json(source: str) -> str | None:
    """Of a Python literal, JSON's words allowed."""
    try:
        tree = ast.parse(source.strip(), mode="eval")
        return json.dumps(ast.literal_eval(_Words().visit(tree)), ensure_ascii=False)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


class _Words(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> Any:
        return ast.Constant(_WORDS[node.id]) if node.id in _WORDS else node


PARSERS: dict[str, Parser] = {
    "deepseek": lambda reader, _: _marked(
        reader, ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"), _deepseek
    ),
    "mistral": _after("[TOOL_CALLS]", _mistral),
    "hermes": _after("<tool_call>", _hermes),
    "glaive": _after("<functioncall>", _glaive),
    "pythonic": _pythonic,
    "llama3": _llama3,
}
"""By the name of the format."""
