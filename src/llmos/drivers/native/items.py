"""What a work item has to be for this driver to take it."""

from __future__ import annotations

from llmos.abi.inference import WorkItem
from llmos.drivers.native import sampling
from llmos.drivers.native.request import tokens_of
from llmos.errors import InvalidRequest, UnsupportedParameter


def check_item(item: WorkItem, vocab_size: int) -> tuple[list[int], list[int]]:
    """Tokens of the prompt, and of the answer as far as it was drawn before. Raises UserError."""
    if item.kind != "generate":
        raise UnsupportedParameter(f"kind {item.kind!r} is not supported", param="kind")
    if item.adapter is not None:
        raise UnsupportedParameter("adapter is not supported by this model", param="adapter")
    if item.options:
        unknown = ", ".join(sorted(item.options))
        raise UnsupportedParameter(
            f"the native driver has no option {unknown}", param="llmos.driver"
        )
    sampling.check(item.sampling)
    for token_id, _ in item.sampling.logit_bias:
        if not 0 <= token_id < vocab_size:
            raise InvalidRequest(
                f"token id {token_id} is not in the vocabulary of {vocab_size}", param="logit_bias"
            )
    for token_id in item.shown:
        if not 0 <= token_id < vocab_size:
            raise InvalidRequest(f"token id {token_id} is not in the vocabulary", param="shown")
    prompt = _tokens(item.tokens, vocab_size, "prompt")
    if not prompt:
        raise InvalidRequest("the prompt has no tokens", param="prompt")
    return prompt, _tokens(item.generated, vocab_size, "generated")


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
