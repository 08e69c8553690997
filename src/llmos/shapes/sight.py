"""A chat, or a response, about an image with a model that only captions: what it is asked, and its
answer.

Such a model reads one image and goes on from one text: those of the last message of the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from llmos.abi.events import Event, Finished, FinishReason, ItemOutput, Outputs, Tokens
from llmos.abi.inference import GENERATE, UNBOUNDED, ChatPrompt, ItemsPrompt, Sampling
from llmos.abi.program import Generate
from llmos.errors import InvalidRequest, LLMOSError, UnsupportedParameter, from_info
from llmos.shapes.options import WishBody
from llmos.shapes.parts import text_of
from llmos.shapes.refusals import NOTHING_FETCHED

KIND = "image-to-text"

CHAT, RESPONSES = "chat", "responses"
"""Routes."""

GREEDY = (0.0, 1.0)
"""Temperatures that are let through: none, and the one that nobody has asked for."""

_FREE = ("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens")
"""Of `Sampling`: what changes nothing where the likeliest token is taken, and the limit."""


_BY_ROUTE = {
    CHAT: {"params": "max_tokens"},
    RESPONSES: {"params": "max_output_tokens", "logprobs": "top_logprobs"},
}
"""Other names of parameters, in the bodies of two routes."""


class Sight(NamedTuple):
    """`where` is the image's part in the body."""

    wish: Generate
    where: str


def is_captioner(error: LLMOSError) -> bool:
    """A chat was refused by a model that can be asked so instead."""
    return KIND in error.details.get("kinds", ())


def captions(kinds: Sequence[str]) -> bool:
    """A model of these kinds answers so, and does not chat."""
    return KIND in kinds and GENERATE not in kinds


def has_earlier_images(prompt: ChatPrompt) -> bool:
    """Images that such a model does not read."""
    last = _last_of_user(prompt)
    return any(_has_images(m) for i, m in enumerate(prompt.messages) if i != last)


def without_earlier_images(prompt: ChatPrompt) -> ChatPrompt:
    """What such a model reads of a chat."""
    last = _last_of_user(prompt)
    messages = [
        message | {"content": text_of(message["content"])}
        if i != last and _has_images(message)
        else message
        for i, message in enumerate(prompt.messages)
    ]
    return msgspec.structs.replace(prompt, messages=messages)


def _last_of_user(prompt: ChatPrompt) -> int:
    """-1: there is none."""
    own = (i for i, message in enumerate(prompt.messages) if message["role"] == "user")
    return max(own, default=-1)


def _has_images(message: dict[str, Any]) -> bool:
    content = message["content"]
    return isinstance(content, list) and any(part["type"] != "text" for part in content)


def read_sight(body: WishBody, wish: Generate) -> Sight:
    """What a captioner is asked in place of `wish`, a chat whose images are in files. Raises
    InvalidRequest and its kinds."""
    prompt = wish.prompt
    assert isinstance(prompt, ChatPrompt)
    _check_fields(body, wish.route)
    last = _last_of_user(prompt)
    content = prompt.messages[last]["content"]
    parts = content if isinstance(content, list) else []
    images = [part for part in parts if part["type"] != "text"]
    if not images:
        where = f"messages.{last}.content" if wish.route == CHAT else "input"
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
    limit = wish.sampling.max_tokens
    params = {} if limit == UNBOUNDED else {"max_new_tokens": limit}
    asked = ItemsPrompt(KIND, [item], params, [prompt.blobs[images[0]["blob"]]])
    return Sight(Generate(wish.model, asked, Sampling(), wish.options, wish.route), where)


def _check_fields(body: WishBody, route: str) -> None:
    """Raises UnsupportedParameter for what would have to change the answer and cannot."""
    names = ("tools", "functions", "return_token_ids")
    given = {name: getattr(body, name, None) for name in names}
    given |= body.grammars()
    given["n"] = getattr(body, "n", 1) > 1
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
            said = _BY_ROUTE[route].get(name, name)
            raise UnsupportedParameter(f"{said!r} is not supported about an image.", param=said)


def in_words_of(route: str, error: LLMOSError) -> LLMOSError:
    """A refusal of the whole request in the words of a route."""
    error.param = _BY_ROUTE[route].get(error.param or "", error.param)
    return error


class Heard:
    """The events of an item, as if what was said of the image at `where` had been written."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._reason: FinishReason | None = None

    def __call__(self, batch: Sequence[Event]) -> list[Event]:
        """Raises what is wrong with the image."""
        return [made for event in batch for made in self._made(event)]

    def _made(self, event: Event) -> list[Event]:
        if isinstance(event, Outputs):
            return [self._said(event.request_id, output) for output in event.items]
        if not isinstance(event, Finished):
            return [event]
        if self._reason is None:
            raise LLMOSError("No answer to an image.")
        return [msgspec.structs.replace(event, reason=self._reason)]

    def _said(self, request_id: str, output: ItemOutput) -> Event:
        if output.error is not None:
            error = from_info(output.error)
            error.param = self._where
            raise error
        self._reason = FinishReason(output.value["finish_reason"])
        return Tokens(request_id, [], output.value["text"])
