"""A chat about an image: what a model that says what it sees is asked, and its answer.

Such a model reads one image and goes on from one text: those of the last message of the user.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from llmos.abi.events import ItemOutput
from llmos.abi.inference import UNBOUNDED, ItemsPrompt, Sampling, Usage
from llmos.abi.program import Generate
from llmos.errors import InvalidRequest, LLMOSError, UnsupportedParameter, from_info
from llmos.shapes.chat import ChatBody, check_messages
from llmos.shapes.outcomes import Choice
from llmos.shapes.parts import images_of, text_of

KIND = "image-to-text"

GREEDY = (0.0, 1.0)
"""Temperatures that are let through: none, and the one that nobody has asked for."""

_FREE = ("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens")
"""Of `Sampling`: what changes nothing where the likeliest token is taken, and the limit."""


class Sight(NamedTuple):
    """`wish` has the image as it was sent, under `image`; `where` is its part in the body."""

    wish: Generate
    where: str


def read_sight(body: ChatBody) -> Sight:
    """The inference that a chat with images asks for. Raises InvalidRequest and its kinds."""
    check_messages(body.messages)
    _check_fields(body)
    for i, message in enumerate(body.messages):
        for at, _ in images_of(message.content):
            if message.role != "user":
                raise InvalidRequest(
                    "Images belong to the role 'user'.", param=f"messages.{i}.content.{at}"
                )
    last = max(i for i, message in enumerate(body.messages) if message.role == "user")
    content, where = body.messages[last].content, f"messages.{last}.content"
    images = images_of(content)
    if not images:
        raise InvalidRequest("The last message of the user has no image.", param=where)
    if len(images) > 1:
        raise InvalidRequest(
            f"{len(images)} images: the model reads one.", param=f"{where}.{images[1][0]}"
        )
    at, image = images[0]
    item: dict[str, Any] = {"image": image}
    if text := text_of(content):
        item["text"] = text
    params = {} if body.token_limit == UNBOUNDED else {"max_new_tokens": body.token_limit}
    prompt = ItemsPrompt(KIND, [item], params)
    wish = Generate(body.model, prompt, Sampling(), body.to_options(), "chat")
    return Sight(wish, f"{where}.{at}")


def _check_fields(body: ChatBody) -> None:
    """Raises UnsupportedParameter for what would have to change the answer and cannot."""
    given = {name: getattr(body, name) for name in ("tools", "functions", "return_token_ids")}
    given |= body.grammars()
    given["n"] = body.n > 1
    given["llmos.resume_s"] = body.llmos.resume_s
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


def cannot_see(error: LLMOSError, where: str) -> LLMOSError:
    """A refusal of the whole request in the words of a chat."""
    if "kinds" in error.details:
        return UnsupportedParameter(
            f"{where!r}: the model reads text only, no parts of type 'image_url'.",
            param=f"{where}.type",
        )
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
