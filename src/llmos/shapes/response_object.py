"""OpenAI's response object, of a call that runs, has ended or was stored."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, Field

from llmos.abi.inference import Usage
from llmos.abi.jobs import JobRecord, JobState
from llmos.abi.principal import ServiceClass
from llmos.abi.program import Answer
from llmos.errors import CapacityError, ErrorInfo, InvalidRequest, from_info
from llmos.shapes import answers
from llmos.shapes.options import TIER_OF
from llmos.shapes.outcomes import report
from llmos.shapes.responses import answer_of, output_of, response_id
from llmos.shapes.tools import choice_object

_S = 1_000_000_000

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

_STATUS: dict[JobState, Status] = {
    JobState.BLOCKED: "queued",
    JobState.PENDING: "queued",
    JobState.SUSPENDED: "queued",
    JobState.RUNNING: "in_progress",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.DEAD: "failed",
    JobState.CANCELLED: "cancelled",
}


class Facts(NamedTuple):
    """What a response object is made of. `echo`: `ResponsesBody.echo()`. Times are UTC ns."""

    job_id: str
    echo: dict[str, Any]
    status: Status
    created_ns: int
    ended_ns: int | None = None
    answer: Answer | None = None
    error: ErrorInfo | None = None
    llmos: dict[str, Any] | None = None


class ResponseObject(answers.Answer):
    """OpenAI's response; `llmos` says how it ran."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Status
    background: bool
    error: dict[str, Any] | None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: dict[str, None]
    service_tier: str | None
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    usage: dict[str, Any] | None
    llmos: dict[str, Any] | None


class InputItems(answers.Answer):
    """A page of what went into a response."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ResponseDeleted(answers.Answer):
    """What is left of a response."""

    id: str
    object: Literal["response"]
    deleted: bool


class ResponseEvent(answers.Answer):
    """One event of a streamed response, as OpenAI has it: what else it has, `type` decides."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(description="The event's name: `response.created` to `response.completed`")
    sequence_number: int = Field(description="From 0; `starting_after` takes it")


def response_object(facts: Facts) -> dict[str, Any]:
    """The whole object."""
    echo, answer = facts.echo, facts.answer
    status, cut = facts.status, None
    if answer is not None and answer.finish_reason == "length":
        status, cut = "incomplete", {"reason": "max_output_tokens"}
    ended_s = None if facts.ended_ns is None else facts.ended_ns // _S
    return {
        "id": response_id(facts.job_id),
        "object": "response",
        "created_at": facts.created_ns // _S,
        "completed_at": ended_s if status == "completed" else None,
        "status": status,
        "background": echo["background"],
        "error": None if facts.error is None else error_object(facts.error),
        "incomplete_details": cut,
        "instructions": echo["instructions"],
        "max_output_tokens": echo["max_output_tokens"],
        "metadata": echo["metadata"],
        "model": echo["model"] if answer is None else answer.model,
        "output": output_of(facts.job_id, answer, echo),
        "parallel_tool_calls": echo.get("parallel_tool_calls", True),
        "previous_response_id": echo["previous_response_id"],
        "reasoning": {"effort": None, "summary": None},
        "service_tier": None if answer is None else TIER_OF[ServiceClass(answer.service_class)],
        "store": echo["store"],
        "temperature": echo["temperature"],
        "text": echo.get("text", {"format": {"type": "text"}, "verbosity": "medium"}),
        "tool_choice": choice_object(echo.get("tool_choice", "auto")),
        "tools": echo.get("tools", []),
        "top_logprobs": echo.get("top_logprobs", 0),
        "top_p": echo["top_p"],
        "truncation": "disabled",
        "usage": None if answer is None else usage_object(answer.usage),
        "llmos": facts.llmos,
    }


def stored_facts(job: JobRecord) -> Facts:
    """A stored response as it is now."""
    answer, outputs = answer_of(job), job.outputs or {}
    status = _STATUS[job.state]
    if status == "in_progress" and job.cancel_reason is not None:
        status = "cancelled"
    return Facts(
        job_id=job.job_id,
        echo=job.spec.inputs["request"],
        status=status,
        created_ns=job.spec.inputs.get("created_ns", job.created_ns),
        ended_ns=outputs.get("ended_ns", job.ended_ns),
        answer=answer,
        error=job.error if status == "failed" else None,
        llmos=None if answer is None else outputs.get("llmos") or report(answer),
    )


def usage_object(usage: Usage) -> dict[str, Any]:
    """Token counts by the names that /v1/responses has for them."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def error_object(error: ErrorInfo) -> dict[str, Any]:
    """OpenAI's few codes; `type` is our own code."""
    raised = from_info(error)
    code = "server_error"
    if isinstance(raised, CapacityError):
        code = "rate_limit_exceeded"
    elif isinstance(raised, InvalidRequest):
        code = "invalid_prompt"
    return {"code": code, "message": error.message, "type": error.code, "param": error.param}
