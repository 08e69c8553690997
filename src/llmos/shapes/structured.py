"""What an answer has to be, as bodies ask for it: one grammar, or none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmos.abi.inference import Grammar
from llmos.errors import InvalidRequest
from llmos.shapes.fields import fault

MAX_GRAMMAR_CHARS = 65_536
"""Of a schema as JSON, of a regular expression, of a grammar."""

MAX_DEPTH = 64
"""Of a schema: objects and lists in one another."""

_FORMATS = ("text", "json_object", "json_schema")
_SCHEMA_KEYS = {"name", "description", "schema", "strict"}

ANY_OBJECT = Grammar("json_schema", '{"type":"object"}')


def format_grammar(value: Any) -> Any:
    """Of `response_format`: a Grammar, or None for text. For a field's validator."""
    if _kind(value, "") != "json_schema":
        _only(value, {"type"}, "")
        return ANY_OBJECT if value["type"] == "json_object" else None
    _only(value, {"type", "json_schema"}, "")
    given = value.get("json_schema")
    if not isinstance(given, dict):
        raise fault("must be an object", "json_schema")
    _only(given, _SCHEMA_KEYS, "json_schema.")
    return named_schema(given, "json_schema.")


def text_format_grammar(value: Any) -> Any:
    """Of `text.format` of a response, which has the schema's fields beside the type."""
    if _kind(value, "format.") != "json_schema":
        _only(value, {"type"}, "format.")
        return ANY_OBJECT if value["type"] == "json_object" else None
    _only(value, _SCHEMA_KEYS | {"type"}, "format.")
    return named_schema(value, "format.")


def _kind(value: Any, at: str) -> str:
    if not isinstance(value, dict):
        raise fault("must be an object", at.rstrip("."))
    kind: str = value.get("type", "")
    if kind not in _FORMATS:
        raise fault(f"is not one of {', '.join(_FORMATS)}", f"{at}type")
    return kind


def structured_grammar(value: Any) -> Any:
    """Of vLLM's `structured_outputs`: one of its forms. For a field's validator."""
    if not isinstance(value, dict):
        raise fault("must be an object")
    _only(value, set(_STRUCTURED), "")
    given = {key: wanted for key, wanted in value.items() if wanted not in (None, False)}
    if len(given) != 1:
        raise fault(f"must have one of {', '.join(_STRUCTURED)}")
    ((key, wanted),) = given.items()
    return _STRUCTURED[key](wanted)


def _of_json(wanted: Any) -> Grammar:
    """An object, or its text."""
    if isinstance(wanted, str):
        try:
            wanted = json.loads(wanted)
        except (ValueError, RecursionError):
            raise fault("is no JSON", "json") from None
    if not isinstance(wanted, dict):
        raise fault("must be an object", "json")
    return Grammar("json_schema", schema_text(wanted, "json"))


def _of_json_object(wanted: Any) -> Grammar:
    if wanted is not True:
        raise fault("must be true or false", "json_object")
    return ANY_OBJECT


def _of_choice(wanted: Any) -> Grammar:
    if not wanted or not isinstance(wanted, list) or not all(map(_is_word, wanted)):
        raise fault("must be a non-empty list of texts", "choice")
    quoted = " | ".join(json.dumps(one, ensure_ascii=False) for one in wanted)
    return Grammar("lark", _short(f"start: {quoted}", "choice"))


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _of_regex(wanted: Any) -> Grammar:
    return Grammar("regex", _short(wanted, "regex"))


def _of_grammar(wanted: Any) -> Grammar:
    return Grammar("lark", _short(wanted, "grammar"))


def _short(text: Any, at: str) -> str:
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_GRAMMAR_CHARS:
        raise fault(f"must be a text of 1 to {MAX_GRAMMAR_CHARS} characters", at)
    return text


_STRUCTURED = {
    "json": _of_json,
    "json_object": _of_json_object,
    "regex": _of_regex,
    "choice": _of_choice,
    "grammar": _of_grammar,
}


def named_schema(given: Mapping[str, Any], at: str) -> Grammar:
    """Strict: every keyword counts. Otherwise those nobody implements are ignored."""
    name, strict = given.get("name"), given.get("strict")
    if not isinstance(name, str) or not 1 <= len(name) <= 64:
        raise fault("must be a name of 1 to 64 characters", f"{at}name")
    if strict is not None and not isinstance(strict, bool):
        raise fault("must be true or false", f"{at}strict")
    schema = given.get("schema")
    if not isinstance(schema, dict):
        raise fault("must be an object", f"{at}schema")
    return Grammar("json_schema", schema_text(schema, f"{at}schema"), lenient=not strict)


def schema_text(schema: Any, at: str = "") -> str:
    """As JSON, within bounds."""
    if _depth(schema) > MAX_DEPTH:
        raise fault(f"is over {MAX_DEPTH} levels deep", at)
    text = json.dumps(schema, ensure_ascii=False)
    if len(text) > MAX_GRAMMAR_CHARS:
        raise fault(f"is over {MAX_GRAMMAR_CHARS} characters", at)
    return text


def _depth(value: Any) -> int:
    """Levels of objects and lists, counted no further than they matter."""
    level, inside = 0, [value]
    while inside and level <= MAX_DEPTH:
        level += 1
        inside = [
            item
            for outer in inside
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, dict | list)
        ]
    return level


def _only(given: Mapping[str, Any], known: set[str], at: str) -> None:
    for key in given:
        if key not in known:
            raise fault("unknown field", f"{at}{key[:64]}")


def one_grammar(wanted: Mapping[str, Grammar | None]) -> Grammar | None:
    """The one that is given, by the field's name. Raises InvalidRequest for several."""
    given = {name: grammar for name, grammar in wanted.items() if grammar is not None}
    if len(given) > 1:
        raise InvalidRequest(
            f"An answer has one form: {' and '.join(given)} are given.", param=next(iter(given))
        )
    return next(iter(given.values()), None)
