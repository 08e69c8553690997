"""A body without its HTTP request: what a batch's line asks for, and what is written about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llmos.abi.principal import ServiceClass
from llmos.abi.program import Answer, Generate
from llmos.errors import InvalidRequest, from_info
from llmos.shapes.inputs import read_chat, read_completions
from llmos.shapes.outcomes import Choice, chat_answer, completion_answer
from llmos.shapes.status import error_body

__all__ = ["URLS", "Limits", "answer_body", "error_body", "infer_of"]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
URLS = (CHAT, COMPLETIONS)
"""What a batch may ask for."""


class Limits(NamedTuple):
    """As the settings of the HTTP edge have them."""

    max_messages: int = 4096
    max_prompt_tokens: int = 1_048_576


LIMITS = Limits()


def infer_of(url: str, body: Mapping[str, Any], limits: Limits = LIMITS) -> Generate:
    """The one inference that a body of `url` asks for.

    Raises InvalidRequest and its kinds, also for several prompts and for a stream: a line has one
    whole answer.
    """
    if body.get("stream"):
        raise InvalidRequest("A line of a batch cannot be streamed.", param="stream")
    if url == CHAT:
        return read_chat(body, limits.max_messages).to_generate()
    if url == COMPLETIONS:
        return read_completions(body, 1, limits.max_prompt_tokens).to_generates()[0]
    raise InvalidRequest(f"{url[:128]!r} is not one of {', '.join(URLS)}.", param="url")


def answer_body(url: str, body: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """What `url` would have answered. Raises the error of an answer that has one."""
    if answer.error is not None:
        raise from_info(answer.error)
    ids = answer.token_ids if body.get("return_token_ids") else None
    choice = Choice(answer.text, answer.finish_reason, answer.stop, answer.usage, ids)
    if url == CHAT:
        return chat_answer(answer, choice, report(answer))
    return completion_answer(answer, [choice], [report(answer)])


def report(answer: Answer) -> dict[str, Any]:
    """The `llmos` object of an answer that nobody waited for: it has no timing."""
    return {
        "request_id": answer.request_id,
        "model": answer.model,
        "deterministic": answer.deterministic,
        "class": ServiceClass(answer.service_class).name.lower(),
        "timing": None,
        "preemptions": None if answer.served is None else answer.served.num_preemptions,
    }
