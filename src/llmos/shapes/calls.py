"""A body without its HTTP request: what a batch's line asks for, and what is written about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llmos.abi.program import Answer, Generate
from llmos.errors import InvalidRequest, UnsupportedParameter, from_info
from llmos.shapes import itemcalls
from llmos.shapes.functions import read_function_choice, read_functions
from llmos.shapes.inputs import read_chat, read_completions
from llmos.shapes.items import has_images, read_items
from llmos.shapes.outcomes import Choice, chat_answer, completion_answer, report
from llmos.shapes.response_object import Facts, response_object
from llmos.shapes.responses import ResponsesBody, read_response
from llmos.shapes.status import error_body
from llmos.shapes.toolcalls.stream import Wanted, hear
from llmos.shapes.tools import read_choice, read_tools, wanted_of

__all__ = ["URLS", "Limits", "answer_body", "error_body", "infer_of", "remembered"]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
URLS = (CHAT, COMPLETIONS, RESPONSES, *itemcalls.URLS)
"""What a batch may ask for."""

_REMEMBERED = (
    "return_token_ids",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
)


NO_IMAGES = "A line of a batch has no images."


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
        chat = read_chat(body, limits.max_messages)
        if chat.has_images:  # they would have to be put into files, and nobody here owns one
            raise UnsupportedParameter(NO_IMAGES, param="messages")
        return _only_one(chat.repeated(chat.to_generate()))
    if url == COMPLETIONS:
        return _only_one(read_completions(body, 1, limits.max_prompt_tokens).to_generates())
    if url == RESPONSES:
        items = read_items(body.get("input"), _no_id)
        if has_images(items):
            raise UnsupportedParameter(NO_IMAGES, param="input")
        return _response(body, limits).to_generate(items)
    if url in itemcalls.URLS:
        return itemcalls.infer_of(url, body)
    raise InvalidRequest(f"{url[:128]!r} is not one of {', '.join(URLS)}.", param="url")


def remembered(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """All of a body that `answer_body` needs, which is little: no prompt. What is false and
    matters is kept, too."""
    if url == RESPONSES:
        return {**body, "input": "-"}
    if url in itemcalls.URLS:
        return itemcalls.remembered(url, body)
    return {name: body[name] for name in _REMEMBERED if body.get(name) is not None}


def answer_body(url: str, body: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """What `url` would have answered. Raises the error of an answer that has one."""
    if answer.error is not None:
        raise from_info(answer.error)
    if url == RESPONSES:
        return _response_object(body, answer)
    if url in itemcalls.URLS:
        return itemcalls.answer_body(url, body, answer)
    ids = answer.token_ids if body.get("return_token_ids") else None
    choice = Choice(
        answer.text, answer.finish_reason, answer.stop, answer.usage, ids, answer.logprobs
    )._replace(echoed=answer.prompt_logprobs)
    if url == CHAT:
        if answer.tool_format:
            wanted = _wanted(body)
            choice = choice._replace(
                heard=hear(answer.text, answer.tool_format, wanted),
                as_function=wanted.as_function,
                tool_format=answer.tool_format,
                request_id=answer.request_id,
            )
        return chat_answer(answer, [choice], [report(answer)])
    return completion_answer(answer, [choice], [report(answer)])


def _only_one(wishes: list[Generate]) -> Generate:
    if len(wishes) > 1:
        raise InvalidRequest("A line of a batch has one answer.", param="n")
    return wishes[0]


def _wanted(body: Mapping[str, Any]) -> Wanted:
    """Of a body that was read before."""
    if body.get("functions"):
        called = read_function_choice(body.get("function_call") or "auto")
        return wanted_of(read_functions(body["functions"]), called, False, as_function=True)
    tools = read_tools(body.get("tools") or [])
    choice = read_choice(body.get("tool_choice") or "auto")
    return wanted_of(tools, choice, body.get("parallel_tool_calls") is not False)


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
