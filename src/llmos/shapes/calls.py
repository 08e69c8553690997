"""A body without its HTTP request: what a batch's line asks for, and what is written about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llmos.abi.program import Answer, Generate
from llmos.errors import InvalidRequest, UnsupportedParameter, from_info
from llmos.shapes.inputs import read_chat, read_completions
from llmos.shapes.items import read_items
from llmos.shapes.outcomes import Choice, chat_answer, completion_answer, report
from llmos.shapes.response_object import Facts, response_object
from llmos.shapes.responses import ResponsesBody, read_response
from llmos.shapes.status import error_body

__all__ = ["URLS", "Limits", "answer_body", "error_body", "infer_of", "remembered"]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
URLS = (CHAT, COMPLETIONS, RESPONSES)
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
    if url == RESPONSES:
        return _response(body, limits).to_generate(read_items(body.get("input"), _no_id))
    raise InvalidRequest(f"{url[:128]!r} is not one of {', '.join(URLS)}.", param="url")


def remembered(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """All of a body that `answer_body` needs, which is little: no prompt."""
    if url == RESPONSES:
        return {**body, "input": "-"}
    return {"return_token_ids": True} if body.get("return_token_ids") else {}


def answer_body(url: str, body: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """What `url` would have answered. Raises the error of an answer that has one."""
    if answer.error is not None:
        raise from_info(answer.error)
    if url == RESPONSES:
        return _response_object(body, answer)
    ids = answer.token_ids if body.get("return_token_ids") else None
    choice = Choice(answer.text, answer.finish_reason, answer.stop, answer.usage, ids)
    if url == CHAT:
        return chat_answer(answer, choice, report(answer))
    return completion_answer(answer, [choice], [report(answer)])


def _no_id() -> str:
    return ""


def _response(body: Mapping[str, Any], limits: Limits) -> ResponsesBody:
    """A line's answer is in the batch's file and nowhere else."""
    read = read_response(body, limits.max_messages)
    for name, given in (
        ("background", read.background),
        ("previous_response_id", read.previous_response_id),
        ("store", body.get("store")),
    ):
        if given:
            raise UnsupportedParameter(f"{name!r} is not supported in a batch.", param=name)
    return read


def _response_object(body: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    echo = {**_response(body, LIMITS).echo(), "store": False}
    job_id = answer.request_id.replace("req_", "job_", 1)
    made = Facts(job_id, echo, "completed", answer.created_ns, answer.created_ns, answer)
    return response_object(made._replace(llmos=report(answer)))
