"""Answer bodies, for the OpenAPI document and for the tests that hold our JSON against them.

The hot path writes JSON by hand (`api.frames`); nothing here runs per token.
"""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import ConfigDict, Field


class Answer(pydantic.BaseModel):
    """Base of answers: closed, so that a test notices a field nobody wrote down."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PromptDetails(Answer):
    cached_tokens: int


class UsageAnswer(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class Timing(Answer):
    """Milliseconds since the request's headers were read; `queued_ms`: until it had a row."""

    accepted_ms: float
    first_token_ms: float | None
    queued_ms: float | None
    total_ms: float


class LlmosAnswer(Answer):
    """What the system says about how a request ran."""

    request_id: str
    model: str
    deterministic: bool | None
    service_class: Literal["batch", "default", "interactive"] = Field(alias="class")
    timing: Timing | None = Field(description="None for a call of a job")
    preemptions: int | None = Field(description="How often it gave up its row")
    suspensions: int | None = Field(description="How often it was taken off its worker")
    context: Literal["kept", "snapshot", "recomputed"] | None = Field(
        description="Whether it never left its worker, went on from snapshots, or had to be "
        "computed again"
    )


class CalledFunction(Answer):
    name: str
    arguments: str


class ToolCall(Answer):
    id: str
    type: Literal["function"]
    function: CalledFunction


class TokenAnswer(Answer):
    token: str
    logprob: float
    bytes: list[int]


class DrawnAnswer(TokenAnswer):
    top_logprobs: list[TokenAnswer]


class LogprobsAnswer(Answer):
    """Of each token. `bytes` are its own; half a character is � as `token`."""

    content: list[DrawnAnswer]
    refusal: None


class TextLogprobs(Answer):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class AnswerMessage(Answer):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCall] | None = None
    function_call: CalledFunction | None = None


class ChatChoice(Answer):
    index: int
    message: AnswerMessage
    logprobs: LogprobsAnswer | None
    finish_reason: Literal["stop", "length", "tool_calls", "function_call"]
    stop_reason: str | int | None
    token_ids: list[int] | None = None


class ChatAnswer(Answer):
    """Answer of /v1/chat/completions. `llmos` is a list where `n` is over 1, by choice."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    service_tier: Literal["default", "flex", "priority"]
    choices: list[ChatChoice]
    usage: UsageAnswer
    llmos: LlmosAnswer | list[LlmosAnswer]


class CalledDelta(Answer):
    name: str | None = None
    arguments: str


class ToolCallDelta(Answer):
    """`id`, `type` and the name come with a call's first piece."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledDelta


class Delta(Answer):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: CalledDelta | None = None


class ChunkChoice(Answer):
    index: int
    delta: Delta
    logprobs: LogprobsAnswer | None
    finish_reason: Literal["stop", "length", "tool_calls", "function_call"] | None
    stop_reason: str | int | None = None
    token_ids: list[int] | None = None


class ChatChunk(Answer):
    """One event of a streamed chat answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    service_tier: Literal["default", "flex", "priority"]
    choices: list[ChunkChoice]
    usage: UsageAnswer | None = None
    llmos: LlmosAnswer | None = None


class TextChoice(Answer):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"] | None
    stop_reason: str | int | None = None
    token_ids: list[int] | None = None


class CompletionAnswer(Answer):
    """Answer of /v1/completions, and (without `usage`) one event of a streamed one.

    `llmos` is a list where there are several prompts, by choice.
    """

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    service_tier: Literal["default", "flex", "priority"]
    choices: list[TextChoice]
    usage: UsageAnswer | None = None
    llmos: LlmosAnswer | list[LlmosAnswer] | None = None


class ModelCard(Answer):
    """OpenAI's model object; `llmos` is our record of the version."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    llmos: dict[str, Any]


class ModelCards(Answer):
    object: Literal["list"]
    data: list[ModelCard]


class ModelDeleted(Answer):
    """What is left of a model."""

    id: str
    object: Literal["model"]
    deleted: bool


class ErrorBody(Answer):
    message: str
    type: str
    param: str | None
    code: str
    retry_after_s: float | None = None
    details: dict[str, Any] | None = None


class ErrorAnswer(Answer):
    """The envelope of every error."""

    error: ErrorBody
