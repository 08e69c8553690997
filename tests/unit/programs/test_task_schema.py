"""The part of JSON Schema that tasks know, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.errors import InvalidRequest
from llmos.programs.task.schema import check_schema, find_fault

FITS: list[tuple[Any, dict[str, Any]]] = [
    (1, {"type": "integer"}),
    (1.0, {"type": "integer"}),
    (1.5, {"type": "number"}),
    (None, {"type": ["string", "null"]}),
    ("好", {"type": "string", "minLength": 1, "maxLength": 1}),
    ("a", {"enum": ["a", "b"]}),
    ([1, 2], {"type": "array", "items": {"type": "integer"}, "maxItems": 2}),
    ({"a": 1, "b": 2}, {"properties": {"a": {"type": "integer"}}}),
    ({"a": 1}, {"additionalProperties": {"type": "integer"}}),
    (3, {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 3}]}),
    ({"anything": [1]}, {}),
]
FAULTS: list[tuple[Any, dict[str, Any], str]] = [
    (True, {"type": "integer"}, "no integer"),
    (1, {"type": "boolean"}, "no boolean"),
    (1.5, {"type": "integer"}, "no integer"),
    (True, {"enum": [1]}, "none of the values"),
    (2, {"const": 1}, "what it must be"),
    ("ab", {"maxLength": 1}, "2 characters"),
    ([1, "a"], {"items": {"type": "integer"}}, r"\$\[1\] is no integer"),
    ([], {"minItems": 1}, "0 items"),
    ({}, {"required": ["a"]}, r"\$\.a is missing"),
    ({"a": {"b": 1}}, {"properties": {"a": {"properties": {"b": {"type": "null"}}}}}, r"\$\.a\.b"),
    ({"z": 1}, {"additionalProperties": False}, "not asked for"),
    ({"z": 1}, {"additionalProperties": {"type": "string"}}, r"\$\.z is no string"),
    (0, {"minimum": 1}, "out of range"),
    (1, {"anyOf": [{"type": "string"}]}, "none of what it may be"),
]


@pytest.mark.parametrize(("value", "schema"), FITS)
def test_fits(value: Any, schema: dict[str, Any]) -> None:
    check_schema(schema)
    assert find_fault(value, schema) is None


@pytest.mark.parametrize(("value", "schema", "match"), FAULTS)
def test_faults(value: Any, schema: dict[str, Any], match: str) -> None:
    import re

    check_schema(schema)
    fault = find_fault(value, schema)
    assert fault is not None
    assert re.search(match, fault)


@pytest.mark.parametrize(
    "schema",
    [
        [],
        {"pattern": "x"},
        {"type": "str"},
        {"type": [["string"]]},
        {"properties": []},
        {"properties": {"a": 3}},
        {"items": {"$ref": "#"}},
        {"anyOf": [{"not": {}}]},
        {"required": "a"},
        {"enum": 3},
        {"anyOf": {}},
        {"minItems": "a"},
        {"maximum": "z"},
    ],
)
def test_a_schema_with_what_is_not_known_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_schema(schema)
    assert (caught.value.param or "").startswith("schema")


def test_depth_is_bounded() -> None:
    deep: dict[str, Any] = {}
    for _ in range(50):
        deep = {"items": deep}
    with pytest.raises(InvalidRequest, match="too deeply"):
        check_schema(deep)
