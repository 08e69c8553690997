"""Whether an answer is what a JSON schema asks for: the keywords that tasks use, no others.

Known: type, enum, const, properties, required, additionalProperties, items, minItems, maxItems,
minLength, maxLength, minimum, maximum, anyOf, description, title, default (JSON Schema 2020-12). A
schema with anything else is refused at the start, never half obeyed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmos.errors import InvalidRequest

MAX_DEPTH = 16

_NOTES = frozenset({"$schema", "default", "description", "examples", "title"})
_SHAPES: dict[str, type | tuple[type, ...]] = {
    "type": (str, list),
    "enum": list,
    "const": object,
    "properties": dict,
    "required": list,
    "additionalProperties": (bool, dict),
    "items": dict,
    "anyOf": list,
    **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength"), int),
    **dict.fromkeys(("minimum", "maximum"), (int, float)),
}
"""Keywords, and what they may be."""

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def check_schema(schema: Any, where: str = "schema", depth: int = 0) -> None:
    """Raises InvalidRequest naming the place of what is not known."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        raise InvalidRequest(f"'{where}' is no schema, or nested too deeply", param=where)
    for name, value in schema.items():
        if name in _NOTES:
            continue
        if name not in _SHAPES:
            raise InvalidRequest(f"'{where}.{name}': this keyword is not supported", param=where)
        if not isinstance(value, _SHAPES[name]):
            raise InvalidRequest(f"'{where}.{name}' is not what it may be", param=where)
    if any(not isinstance(name, str) or name not in _TYPES for name in _types(schema)):
        raise InvalidRequest(f"'{where}.type' names no type", param=where)
    for path, inner in _inner(schema):
        check_schema(inner, f"{where}.{path}", depth + 1)


def _inner(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas in it, and where."""
    for name, inner in schema.get("properties", {}).items():
        yield f"properties.{name}", inner
    for number, inner in enumerate(schema.get("anyOf", [])):
        yield f"anyOf.{number}", inner
    for name in ("items", "additionalProperties"):
        if name in schema and not isinstance(schema[name], bool):
            yield name, schema[name]


def _types(schema: Mapping[str, Any]) -> list[Any]:
    given = schema.get("type", [])
    return given if isinstance(given, list) else [given]


def find_fault(value: Any, schema: Mapping[str, Any], where: str = "$") -> str | None:
    """What is wrong with a value, the first thing, for people; None when it fits."""
    types = _types(schema)
    if types and not any(_is(value, name) for name in types):
        return f"{where} is no {' or '.join(types)}"
    if "enum" in schema and not any(_equal(value, one) for one in schema["enum"]):
        return f"{where} is none of the values there are"
    if "const" in schema and not _equal(value, schema["const"]):
        return f"{where} is not what it must be"
    if "anyOf" in schema and all(find_fault(value, one, where) for one in schema["anyOf"]):
        return f"{where} is none of what it may be"
    if isinstance(value, dict):
        return _object_fault(value, schema, where)
    if isinstance(value, list):
        return _array_fault(value, schema, where)
    return _scalar_fault(value, schema, where)


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _object_fault(value: dict[str, Any], schema: Mapping[str, Any], where: str) -> str | None:
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            return f"{where}.{name} is missing"
    others = schema.get("additionalProperties", True)
    for name, inner in value.items():
        if name in properties:
            fault = find_fault(inner, properties[name], f"{where}.{name}")
        elif others is False:
            fault = f"{where}.{name} is not asked for"
        else:
            fault = find_fault(inner, others, f"{where}.{name}") if others is not True else None
        if fault:
            return fault
    return None


def _array_fault(value: list[Any], schema: Mapping[str, Any], where: str) -> str | None:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return f"{where} has {len(value)} items"
    if "items" not in schema:
        return None
    faults = (find_fault(one, schema["items"], f"{where}[{i}]") for i, one in enumerate(value))
    return next(filter(None, faults), None)


def _scalar_fault(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    if isinstance(value, str):
        low, high = schema.get("minLength", 0), schema.get("maxLength", len(value))
        return None if low <= len(value) <= high else f"{where} has {len(value)} characters"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        return None if low <= value <= high else f"{where} is out of range"
    return None
