"""A chat about an image with a model that only captions: what it is asked, and its answer.

Such a model reads one image and goes on from one text: those of the last message of the user.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from llmos.abi.events import ItemOutput
from llmos.abi.inference import UNBOUNDED, ChatPrompt, ItemsPrompt, Sampling, Usage
from llmos.abi.program import Generate
from llmos.errors import InvalidRequest, LLMOSError, UnsupportedParameter, from_info
from llmos.shapes.chat import ChatBody
from llmos.shapes.outcomes import Choice
from llmos.shapes.parts import text_of
from llmos.shapes.refusals import NOTHING_FETCHED

KIND = "image-to-text"

GREEDY = (0.0, 1.0)
"""Temperatures that are let through: none, and the one that nobody has asked for."""

_FREE = ("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens")
"""Of `Sampling`: what changes nothing where the likeliest token is taken, and the limit."""


class Sight(NamedTuple):
    """`where` is the image's part in the body."""

    wish: Generate
    where: str


def is_captioner(error: LLMOSError) -> bool:
    """A chat was refused by a model that can be asked so instead."""
    return KIND in error.details.get("kinds", ())


def read_sight(body: ChatBody, prompt: ChatPrompt) -> Sight:
    """What a captioner is asked by a chat whose images are in files. Raises InvalidRequest and its
    kinds."""
    _check_fields(body)
    last = max(i for i, message in enumerate(prompt.messages) if message["role"] == "user")
    content, where = prompt.messages[last]["content"], f"messages.{last}.content"
    parts = content if isinstance(content, list) else []
    images = [part for part in parts if part["type"] != "text"]
    if not images:
        raise InvalidRequest("The last message of the user has no image.", param=where)
    if len(images) > 1:
        second: str = images[1]["where"]
        raise InvalidRequest(f"{len(images)} images: the model reads one.", param=second)
    where = images[0]["where"]
    if images[0]["type"] == "image_url":
        raise UnsupportedParameter(NOTHING_FETCHED, param=f"{where}.image_url.url")
    item: dict[str, Any] = {"blob": 0}
    if text := text_of(content):
        item["text"] = text
    params = {} if body.token_limit == UNBOUNDED else {"max_new_tokens": body.token_limit}
    asked = ItemsPrompt(KIND, [item], params, [prompt.blobs[images[0]["blob"]]])
    return Sight(Generate(body.model, asked, Sampling(), body.to_options(), "chat"), where)


def _check_fields(body: ChatBody) -> None:
    """Raises UnsupportedParameter for what would have to change the answer and cannot."""
    given = {name: getattr(body, name) for name in ("tools", "functions", "return_token_ids")}
    given |= body.grammars()
    given["n"] = body.n > 1
    sampling = msgspec.structs.asdict(body.to_sampling(UNBOUNDED))
    neutral = msgspec.structs.asdict(Sampling())
    given |= {
        name: sampling[name] != neutral[name]
        for name in sampling
        if name not in _FREE and name != "grammar"
    }
    given["temperature"] = body.temperature not in GREEDY
    for name, value in given.items():
        if value:
            raise UnsupportedParameter(
                f"{name!r} is not supported in a chat about an image.", param=name
            )


def in_chat(error: LLMOSError) -> LLMOSError:
    """A refusal of the whole request in the words of a chat."""
    if error.param == "params":
        error.param = "max_tokens"
    return error


def sight_choice(output: ItemOutput, usage: Usage, where: str) -> Choice:
    """What was said of the image. Raises what is wrong with it."""
    if output.error is not None:
        error = from_info(output.error)
        error.param = where
        raise error
    return Choice(output.value["text"], output.value["finish_reason"], None, usage)
