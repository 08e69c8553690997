"""The body of /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from llmos.abi.inference import TextPrompt, TokensPrompt
from llmos.abi.program import Generate
from llmos.errors import InvalidRequest, UnsupportedParameter
from llmos.shapes import table
from llmos.shapes.fields import MAX_INT32, fault
from llmos.shapes.options import InferenceBody
from llmos.shapes.outcomes import Choice, likelihood

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default of this route."""


def prompts_of(value: Any) -> Any:
    """Every documented form as a list of prompts, each a text or a list of token ids."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise fault("must be a text, a list of texts, token ids, or lists of token ids")
    if not value:
        raise fault("must not be empty")
    first = value[0]
    if isinstance(first, str):
        for i, text in enumerate(value):
            if not isinstance(text, str):
                raise fault("must be a text like the first", str(i))
        return value
    if isinstance(first, list):
        for i, tokens in enumerate(value):
            _check_tokens(tokens, f"{i}")
        return value
    _check_tokens(value, "")
    return [value]


def _check_tokens(tokens: Any, at: str) -> None:
    if not isinstance(tokens, list) or not tokens:
        raise fault("must be a non-empty list of token ids", at)
    for i, token in enumerate(tokens):
        if type(token) is not int or not 0 <= token <= MAX_INT32:
            raise fault(f"must be an integer from 0 to {MAX_INT32}", f"{at}.{i}".lstrip("."))


class CompletionsBody(InferenceBody):
    """What is honoured; docs/openai.md says what happens to other documented fields."""

    beside = table.COMPLETIONS

    # Any: the validator has looked at every element already, and token lists are long
    prompt: Annotated[
        Any,
        BeforeValidator(
            prompts_of, json_schema_input_type=str | list[str] | list[int] | list[list[int]]
        ),
    ] = Field(description="A text, token ids, or a list of either: an answer to each")

    logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        default=None, description="Of so many of the likeliest tokens"
    )
    best_of: Annotated[int, Field(ge=1, le=20, description="Answers to choose `n` of")] | None = (
        Field(default=None, description="Answers to choose `n` of")
    )
    echo: bool = Field(default=False, description="Begin with the prompt; not of a stream")

    @property
    def num_logprobs(self) -> int | None:
        """They are needed to choose by as well."""
        return 0 if self.logprobs is None and self.chooses else self.logprobs

    @property
    def chooses(self) -> bool:
        """More answers are made than told."""
        return self.num_each > self.n

    @property
    def num_each(self) -> int:
        return max(self.n, self.best_of or 1)

    @property
    def num_prompt_logprobs(self) -> int | None:
        """Of the prompt's tokens, too, where it is part of the answer."""
        return (self.logprobs or 0) if self.echo else None

    @property
    def token_limit(self) -> int:
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    def to_prompts(self) -> list[TextPrompt | TokensPrompt]:
        """The abi's words, one per choice."""
        return [TextPrompt(p) if isinstance(p, str) else TokensPrompt(p) for p in self.prompt]

    def to_generates(self) -> list[Generate]:
        """The inferences it asks for, `num_each` for each prompt. Raises InvalidRequest."""
        if self.best_of is not None and self.best_of < self.n:
            raise InvalidRequest("'best_of' is less than 'n'.", param="best_of")
        if self.chooses and self.stream:
            raise InvalidRequest("What is to be chosen cannot be streamed.", param="best_of")
        if self.echo and self.stream:
            text = "'echo' is for an answer that is no stream."
            raise UnsupportedParameter(text, param="echo")
        wishes = [self.to_wish(p, self.token_limit, "completions") for p in self.to_prompts()]
        return [again for wish in wishes for again in self.repeated(wish)]

    def choose(self, choices: Sequence[Choice]) -> list[int]:
        """Of `num_each` for each prompt, the numbers of the `n` to tell: the likeliest by token,
        best first, as OpenAI has it."""
        each, told = self.num_each, list[int]()
        for first in range(0, len(choices), each):
            numbers = [*range(first, first + each)]
            if self.chooses:
                numbers.sort(key=lambda number: -likelihood(choices[number]))
            told += numbers[: self.n]
        return told
