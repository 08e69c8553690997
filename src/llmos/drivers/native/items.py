"""What a work item has to be for this driver to take it."""

from __future__ import annotations

from typing import Any

from llmos.abi.inference import WorkItem
from llmos.drivers.items import check_ids, read_tokens
from llmos.drivers.sampling import params
from llmos.errors import InvalidRequest, UnsupportedParameter


def check_item(item: WorkItem, vocab_size: int) -> tuple[list[int], list[int]]:
    """Tokens of the prompt, and of the answer as far as it was drawn before. Raises UserError."""
    if item.kind != "generate":
        raise UnsupportedParameter(f"kind {item.kind!r} is not supported", param="kind")
    if item.adapter is not None:
        raise UnsupportedParameter("adapter is not supported by this model", param="adapter")
    _check_options(item.options)
    params.check(item.sampling)
    check_ids([token_id for token_id, _ in item.sampling.logit_bias], vocab_size, "logit_bias")
    check_ids(item.shown, vocab_size, "shown")
    prompt = read_tokens(item.tokens, vocab_size, "prompt")
    if not prompt:
        raise InvalidRequest("the prompt has no tokens", param="prompt")
    return prompt, read_tokens(item.generated, vocab_size, "generated")


def _check_options(options: dict[str, Any]) -> None:
    """`guesses`: whether tokens may be guessed ahead. The answer is the same, its speed may not."""
    if unknown := ", ".join(sorted(options.keys() - {"guesses"})):
        raise UnsupportedParameter(
            f"the native driver has no option {unknown}; it has guesses", param="llmos.driver"
        )
    if not isinstance(options.get("guesses", True), bool):
        raise InvalidRequest("guesses is true or false", param="llmos.driver")
