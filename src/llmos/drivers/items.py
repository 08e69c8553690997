"""What a work item has to be for any driver to take it. Light: no engine."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from llmos.abi.inference import WorkItem
from llmos.errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter


def check_plain(item: WorkItem, features: Sequence[str]) -> None:
    """For drivers that generate, without adapters, and of `FEATURES` with these only. Raises
    UserError."""
    if item.kind != "generate":
        raise UnsupportedParameter(f"kind {item.kind!r} is not supported", param="kind")
    for name in ("adapter", "grammar"):
        if name not in features and getattr(item, name) is not None:
            raise UnsupportedParameter(f"{name} is not supported by this model", param=name)
    for name, neutral in (("logit_bias", []), ("logprobs", None), ("prompt_logprobs", None)):
        if name not in features and getattr(item.sampling, name) != neutral:
            raise UnsupportedParameter(f"{name} is not supported by this model", param=name)


def check_ids(token_ids: Sequence[int], vocab_size: int, param: str) -> None:
    """Raises InvalidRequest for one that is not of the vocabulary."""
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise InvalidRequest(
                f"token id {token_id} is not in the vocabulary of {vocab_size}", param=param
            )


def read_tokens(packed: bytes, vocab_size: int, param: str) -> list[int]:
    """Of int32, little-endian, each of the vocabulary. Raises InvalidRequest."""
    if len(packed) % 4:
        raise InvalidRequest(f"{param} holds part of a token", param=param)
    found = array("i", packed).tolist()
    if found and (min(found) < 0 or max(found) >= vocab_size):
        raise InvalidRequest(
            f"{param} has a token outside the vocabulary of {vocab_size}", param=param
        )
    return found


def check_room(item: WorkItem, num_prompt: int, num_generated: int, context_length: int) -> int:
    """How many tokens the answer may have. Raises ContextLengthExceeded, InvalidRequest."""
    room = context_length - num_prompt
    wanted = item.sampling.max_tokens or max(1, room)
    if wanted > room:
        raise ContextLengthExceeded(
            f"{num_prompt} prompt tokens and {wanted} to generate exceed the context of "
            f"{context_length} tokens",
            param="prompt" if room < 1 else "max_tokens",
        )
    if num_generated > wanted:
        raise InvalidRequest(
            f"{num_generated} tokens were generated of {wanted}", param="generated"
        )
    return wanted


IMAGES = ("image", "image_url")
"""Types of a message's parts that are no texts: see `abi.ChatPrompt`."""


def check_texts(parts: Iterable[Any]) -> None:
    """Of a message, for a model that does not see. Raises UnsupportedParameter naming an image."""
    for part in parts:
        if isinstance(part, dict) and part.get("type") in IMAGES:
            raise no_images(part)


def no_images(part: dict[str, Any]) -> UnsupportedParameter:
    """The refusal of a model that does not see."""
    where = part.get("where", "messages")
    return UnsupportedParameter(
        f"{where!r}: the model reads text only, no images.", param=f"{where}.type"
    )
