"""What a request asks of an answer beyond its sampling, in the words of a remote's API."""

from __future__ import annotations

import json
from typing import Any

from llmos.abi.inference import ChatPrompt, Grammar, Sampling
from llmos.abi.remote import RemoteSpec
from llmos.errors import InvalidRequest, UnsupportedParameter

SCHEMA_NAME = "answer"
"""OpenAI wants a schema to have one."""

_STRUCTURED = {"json_schema": "json", "regex": "regex", "lark": "grammar"}
"""Kinds of grammar, as vLLM's `structured_outputs` calls them."""


def grammar_fields(grammar: Grammar | None, spec: RemoteSpec, *, is_chat: bool) -> dict[str, Any]:
    """OpenAI knows a schema, in a chat; vLLM's additions the others, and texts. Raises
    UnsupportedParameter where the remote is not known to know them, InvalidRequest."""
    if grammar is None:
        return {}
    if grammar.kind not in _STRUCTURED:
        raise InvalidRequest(f"no grammar is called {grammar.kind[:40]!r}", param="grammar")
    value: Any = grammar.text
    if grammar.kind == "json_schema":
        value = _schema(grammar.text)
        if is_chat:
            return {"response_format": _response_format(value, grammar.lenient)}
    require(spec, "grammar", f"{grammar.kind} for {'a chat' if is_chat else 'a text'}")
    return {"structured_outputs": {_STRUCTURED[grammar.kind]: value}}


def _response_format(schema: Any, lenient: bool) -> dict[str, Any]:
    if schema == {"type": "object"}:
        return {"type": "json_object"}
    named = {"name": SCHEMA_NAME, "schema": schema}
    return {"type": "json_schema", "json_schema": named if lenient else named | {"strict": True}}


def _schema(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("the schema is no JSON", param="grammar") from None


def tool_fields(prompt: ChatPrompt) -> dict[str, Any]:
    """OpenAI's. What is the default is left out."""
    if not prompt.tools:
        return {}
    made: dict[str, Any] = {"tools": prompt.tools}
    choice = prompt.tool_choice
    if choice.startswith("name:"):
        name = choice.removeprefix("name:")
        made["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif choice != "auto":
        made["tool_choice"] = choice
    if not prompt.parallel_tools:
        made["parallel_tool_calls"] = False
    return made


def logit_fields(sampling: Sampling, *, is_chat: bool) -> dict[str, Any]:
    """OpenAI's. The ids of a bias are the remote's own: nobody here knows them."""
    made: dict[str, Any] = {}
    if sampling.logit_bias:
        made["logit_bias"] = {str(token_id): bias for token_id, bias in sampling.logit_bias}
    if sampling.logprobs is not None and is_chat:
        made["logprobs"] = True
        if sampling.logprobs:
            made["top_logprobs"] = sampling.logprobs
    elif sampling.logprobs is not None:
        made["logprobs"] = sampling.logprobs
    return made


def require(spec: RemoteSpec, param: str, what: str = "") -> None:
    """Raises UnsupportedParameter where the remote is not known to know vLLM's additions."""
    if not spec.extensions:
        raise UnsupportedParameter(
            f"{what or param} is no field of OpenAI's, and this remote model is not said to know "
            "it (`extensions: true`)",
            param=param,
        )
