"""From a parsed body to a pydantic shape, or to one typed error that names the field."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import pydantic
from pydantic import ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails

from llmos.errors import InvalidRequest, UnsupportedParameter
from llmos.shapes import table

M = TypeVar("M", bound=pydantic.BaseModel)


class Shape(pydantic.BaseModel):
    """Strict: a bool is no number, a number no text, and nothing is infinite.

    `beside` is what a body may have without its being read; its JSON Schema allows that, and what
    `screen` takes out: a null where nothing has to be.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, populate_by_name=False
    )
    beside: ClassVar[table.Table] = table.NOTHING

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        made = handler(core_schema)
        if handler.mode == "validation":
            schema = handler.resolve_ref_schema(made)
            fields, required = schema.get("properties", {}), schema.get("required", ())
            schema["properties"] = {
                name: field if name in required else _or_null(field)
                for name, field in fields.items()
            } | {name: table.schema_of(values) for name, values in cls.beside.items()}
        return made


_ABOUT = frozenset({"title", "description", "default"})
"""Of a schema: what says nothing of the type."""


def _or_null(field: JsonSchemaValue) -> JsonSchemaValue:
    """A field's schema, and null where it is not allowed already."""
    kind = {name: value for name, value in field.items() if name not in _ABOUT}
    null = {"type": "null"}
    if not kind or null in kind.get("anyOf", ()):
        return field
    kinds = kind["anyOf"] if kind.keys() == {"anyOf"} else [kind]
    about = {name: value for name, value in field.items() if name in _ABOUT}
    return about | {"anyOf": [*kinds, null]}


@functools.cache
def names_of(shape: type[Shape]) -> frozenset[str]:
    """Fields of a body, as JSON has them."""
    return frozenset(field.alias or name for name, field in shape.model_fields.items())


def screen(shape: type[Shape], body: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """What is read of a body. Raises as `table.screen` does."""
    return table.screen(body, names_of(shape), shape.beside, path)


def validate(shape: type[M], body: Mapping[str, Any], path: str = "") -> M:
    """Raises InvalidRequest (or UnsupportedParameter) whose `param` is the field's path."""
    try:
        return shape.model_validate(body)
    except pydantic.ValidationError as e:
        raise _to_error(e.errors(include_url=False)[0], path) from None


def _to_error(fault: ErrorDetails, path: str) -> InvalidRequest:
    parts = [str(part) for part in fault["loc"]]
    deeper = fault.get("ctx", {}).get("at", "")
    where = ".".join(filter(None, [path, *parts, deeper])) or "body"
    if fault["type"] == "unsupported":
        return UnsupportedParameter(f"{where!r}: {fault['msg']}", param=where)
    return InvalidRequest(f"Invalid value for {where!r}: {fault['msg']}.", param=where)
