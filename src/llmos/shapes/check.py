"""From a parsed body to a pydantic shape, or to one typed error that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic
from pydantic import ConfigDict
from pydantic_core import ErrorDetails

from llmos.errors import InvalidRequest, UnsupportedParameter

M = TypeVar("M", bound=pydantic.BaseModel)


class Shape(pydantic.BaseModel):
    """Strict: a bool is no number, a number no text, and nothing is infinite."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, populate_by_name=False
    )


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
