"""JSON Schemas of shapes, those of pydantic and those of the abi, as components of a document."""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any

import msgspec
import pydantic
from pydantic.json_schema import JsonSchemaMode

from llmos.abi.principal import ServiceClass

REF = "#/components/schemas/"
_RESULT = "r."
"""Tags of results begin so; nobody outside ever sees them."""


class Schemas:
    """Every schema asked for and those it needs, by name. One name is one schema."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Any]] = {}

    def body(self, shape: type[pydantic.BaseModel]) -> dict[str, Any]:
        """A reference to the schema of what is read as `shape`."""
        return self._pydantic(shape, "validation")

    def answer(self, shape: Any) -> dict[str, Any]:
        """A reference to the schema of what is written as `shape`, or those of a union's; what is
        no shape stands for itself."""
        if isinstance(shape, types.UnionType):
            return {"anyOf": [self.answer(one) for one in typing.get_args(shape)]}
        if isinstance(shape, type) and issubclass(shape, pydantic.BaseModel):
            return self._pydantic(shape, "serialization")
        (schema,), parts = msgspec.json.schema_components((shape,), ref_template=REF + "{name}")
        for name, part in parts.items():
            self._keep(name, _as_sent(part))
        return schema

    def _pydantic(self, shape: type[pydantic.BaseModel], mode: JsonSchemaMode) -> dict[str, Any]:
        made = shape.model_json_schema(ref_template=REF + "{model}", mode=mode)
        for name, part in {**made.pop("$defs", {}), shape.__name__: made}.items():
            self._keep(name, part)
        return {"$ref": REF + shape.__name__}

    def _keep(self, name: str, schema: dict[str, Any]) -> None:
        """Raises ValueError for two schemas of one name."""
        if name == ServiceClass.__name__:  # a number inside, its name outside: `wire.to_wire`
            schema = schema | {"enum": [one.name.lower() for one in ServiceClass]}
        if "description" in schema:
            schema = schema | {"description": inspect.cleandoc(schema["description"])}
        if "properties" in schema:
            fields = {name: _without_nothing(one) for name, one in schema["properties"].items()}
            schema = schema | {"properties": fields}
        if self.made.setdefault(name, schema) != schema:
            raise ValueError(f"two shapes are called {name}")


def _without_nothing(field: dict[str, Any]) -> dict[str, Any]:
    """A default that is nothing is the same as none, and may be of another type than is read."""
    return {k: v for k, v in field.items() if k != "default" or v not in (None, [], {})}


def _as_sent(schema: dict[str, Any]) -> dict[str, Any]:
    """Without the tag of a result, which nobody outside sees, and that of others may be missing:
    see `wire.to_wire`."""
    tags = schema.get("properties", {}).get("type", {}).get("enum", ())
    if len(tags) != 1:
        return schema
    required = [name for name in schema["required"] if name != "type"]
    properties = {
        name: field
        for name, field in schema["properties"].items()
        if name != "type" or not tags[0].startswith(_RESULT)
    }
    return schema | {"properties": properties, "required": required}
