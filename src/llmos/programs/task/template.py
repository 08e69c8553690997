"""Prompt templates of a task: Jinja in a sandbox that reads a row's columns and nothing else.

The template is its owner's, and so is the worker that renders it: bounds here keep a mistake from
filling the worker's memory, its `timeout_s` ends one that never comes to an end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmos.errors import InvalidRequest

MAX_SOURCE_CHARS = 100_000
MAX_PROMPT_CHARS = 8 << 20


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters["tojson"] = _to_json


class Template:
    """Compiled once for a task; `names` are the variables it reads. Raises InvalidRequest."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_SOURCE_CHARS:
            text = f"a prompt has at most {MAX_SOURCE_CHARS} characters"
            raise InvalidRequest(text, param="prompt")
        try:
            self._template = _ENVIRONMENT.from_string(source)
            self.names = meta.find_undeclared_variables(_ENVIRONMENT.parse(source))
        except (jinja2.TemplateError, RecursionError) as error:
            raise _broken("cannot be read", error) from None

    def render(self, variables: Mapping[str, Any]) -> str:
        """The prompt of one row. Raises InvalidRequest, also for a column that is not there."""
        try:
            pieces, size = [], 0
            for piece in self._template.generate(variables):
                size += len(piece)
                if size > MAX_PROMPT_CHARS:
                    raise InvalidRequest(f"the prompt is over {MAX_PROMPT_CHARS} characters")
                pieces.append(piece)
        except (jinja2.TemplateError, *_FAULTS) as error:
            raise _broken("refused this input", error) from None
        return "".join(pieces)


_FAULTS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template can do wrong with a value."""


def _broken(how: str, error: BaseException) -> InvalidRequest:
    text = (str(error) or type(error).__name__)[:300]
    line = getattr(error, "lineno", None)
    where = f" (line {line})" if isinstance(line, int) else ""
    return InvalidRequest(f"the prompt {how}{where}: {text}", param="prompt")
