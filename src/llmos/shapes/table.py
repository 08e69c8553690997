"""The one table of fields OpenAI documents and we do not honour (yet), and how each is met.

Whatever is neither a field of a shape nor in its table is unknown, and the answer names near
matches. A null is always the same as an absent field, as OpenAI has it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from llmos.errors import InvalidRequest, UnknownParameter, UnsupportedParameter
from llmos.shapes.strict_json import join

IGNORED = object()
"""The field says something about the caller that changes no answer."""

_OFF: tuple[Any, ...] = (None, False)
_EMPTY: tuple[Any, ...] = (None, [], {})

Table = Mapping[str, Any]
"""Field name: `IGNORED`, or the values that change nothing; any other value is refused."""

_SHARED: dict[str, Any] = {
    "user": IGNORED,  # never trusted as an identity
}

CHAT: Table = _SHARED | {
    "metadata": IGNORED,
    "prompt_cache_key": IGNORED,
    "prompt_cache_options": IGNORED,
    "prompt_cache_retention": IGNORED,
    "safety_identifier": IGNORED,
    "store": IGNORED,
    "audio": (None,),
    "modalities": (None, ["text"]),
    "moderation": (None,),
    "prediction": (None,),
    "reasoning_effort": (None, "none"),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
}

COMPLETIONS: Table = _SHARED | {
    "suffix": (None, ""),
}

RESPONSES: Table = {
    "user": IGNORED,
    "max_tool_calls": IGNORED,
    "prompt_cache_key": IGNORED,
    "prompt_cache_options": IGNORED,
    "prompt_cache_retention": IGNORED,
    "safety_identifier": IGNORED,
    "access_programs": IGNORED,
    "image": IGNORED,  # no image gets in
    "background_options": IGNORED,  # what may be in these three says RESPONSES_INNER
    "reasoning": IGNORED,
    "stream_options": IGNORED,
    "context_management": _EMPTY,
    "conversation": (None,),
    "moderation": (None,),
    "prompt": (None,),
    "truncation": (None, "disabled"),
}

RESPONSES_INNER: Mapping[str, Table] = {
    "background_options": {"completion_window": (None, "soonest"), "continuation_id": IGNORED},
    "reasoning": {
        "context": IGNORED,
        "effort": (None, "none"),
        "generate_summary": IGNORED,  # there is no reasoning to sum up
        "mode": (None, "standard"),
        "summary": IGNORED,
    },
    "stream_options": {"include_obfuscation": IGNORED},
    "text": {"format": IGNORED, "verbosity": (None, "medium")},  # the format is read by the body
}
"""Objects of a response's body, and what may be in them."""

LOGPROBS = "message.output_text.logprobs"
"""The one part that an answer has when it is asked for."""

RESPONSES_INCLUDE = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    LOGPROBS,
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)
"""Parts of items; but for `LOGPROBS` no answer here has them, so asking adds nothing."""

EMBEDDINGS: Table = {"user": IGNORED}

SPEECH: Table = {
    "instructions": (None, ""),
    "stream_format": (None, "audio"),
}

RERANK: Table = {
    "max_chunks_per_doc": IGNORED,  # Cohere's, of how long documents are read
    "max_tokens_per_doc": (None,),
    "priority": IGNORED,
    "rank_fields": (None, ["text"]),
    "truncate": (None, True),
}

MESSAGE: Table = {
    "annotations": _EMPTY,  # of an answer; clients hand back all of it
    "audio": (None,),
    "refusal": (None,),
}

STREAM_OPTIONS: Table = {"include_obfuscation": IGNORED}  # padding; loopback has no eavesdropper

NOTHING: Table = {}


def schema_of(values: Any) -> dict[str, Any]:
    """What a field of a table may be, as JSON Schema has it."""
    if values is IGNORED:
        return {"description": "Changes no answer"}
    told = "Changes no answer; with any other value it is refused"
    return {"enum": list(values), "description": told}


def screen(
    body: Mapping[str, Any], fields: Collection[str], table: Table, path: str = ""
) -> dict[str, Any]:
    """`body` without nulls and ignored fields.

    Raises UnsupportedParameter for a documented field with a value that we would not honour,
    UnknownParameter for any other field that is not one of `fields`.
    """
    kept = {}
    for key, value in body.items():
        if key in fields:
            if value is not None:
                kept[key] = value
        elif key not in table:
            raise unknown(key, fields, table, path)
        elif (neutral := table[key]) is not IGNORED and not _is_neutral(value, neutral):
            where = join(path, key)
            raise UnsupportedParameter(
                f"{where!r} with this value is not supported by this server.", param=where
            )
    return kept


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    # 1 == True in Python, but not in JSON
    return any(value == one and type(value) is type(one) for one in neutral)


def unknown(key: str, fields: Collection[str], table: Table, path: str = "") -> InvalidRequest:
    """The error of a field nobody documents, with near matches."""
    near = difflib.get_close_matches(key[:64], [*fields, *table], n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    where = join(path, key[:128])
    return UnknownParameter(
        f"Unknown parameter: {where!r}.{hint}", param=where, details={"near": near} if near else {}
    )
