"""What a work item has to be for this driver to take it."""

from __future__ import annotations

from typing import Any

from llmos.abi.inference import WorkItem
from llmos.drivers.native import sampling
from llmos.drivers.native.request import tokens_of
from llmos.errors import InvalidRequest, UnsupportedParameter


def check_item(item: WorkItem, vocab_size: int) -> tuple[list[int], list[int]]:
    """Tokens of the prompt, and of the answer as far as it was drawn before. Raises UserError."""
    if item.kind != "generate":
        raise UnsupportedParameter(f"kind {item.kind!r} is not supported", param="kind")
    for name in ("adapter", "grammar"):
        if getattr(item, name) is not None:
            raise UnsupportedParameter(f"{name} is not supported by this model", param=name)
    _check_options(item.options)
    sampling.check(item.sampling)
    prompt = _tokens(item.tokens, vocab_size, "prompt")
    if not prompt:
        raise InvalidRequest("the prompt has no tokens", param="prompt")
    return prompt, _tokens(item.generated, vocab_size, "generated")


def _check_options(options: dict[str, Any]) -> None:
    """`guesses`: whether tokens may be guessed ahead. The answer is the same, its speed may not."""
    if unknown := ", ".join(sorted(options.keys() - {"guesses"})):
        raise UnsupportedParameter(
            f"the native driver has no option {unknown}; it has guesses", param="llmos.driver"
        )
    if not isinstance(options.get("guesses", True), bool):
        raise InvalidRequest("guesses is true or false", param="llmos.driver")


def _tokens(packed: bytes, vocab_size: int, param: str) -> list[int]:
    """Of int32, little-endian."""
    if len(packed) % 4:
        raise InvalidRequest(f"{param} holds part of a token", param=param)
    found = tokens_of(packed)
    if found and (min(found) < 0 or max(found) >= vocab_size):
        raise InvalidRequest(
            f"{param} has a token outside the vocabulary of {vocab_size}", param=param
        )
    return found
