"""The body of /v1/responses, and a stored response as the durable call it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from pydantic import BeforeValidator, Field

from llmos.abi.inference import UNBOUNDED, ChatPrompt
from llmos.abi.jobs import INFER, JobRecord, JobSpec
from llmos.abi.principal import ServiceClass
from llmos.abi.program import Answer, Generate
from llmos.errors import InvalidRequest
from llmos.shapes import table
from llmos.shapes.check import Shape, validate
from llmos.shapes.fields import Metadata, TokenCount, fault
from llmos.shapes.items import Item, messages_of, text_item
from llmos.shapes.names import RESPONSE_PREFIX, named
from llmos.shapes.options import LlmosOptions, WishBody

ROUTE = "responses"

MAX_STORED_BYTES = 2 * 1024 * 1024
"""A conversation as it is kept, in bytes of JSON."""


def _include(value: Any) -> Any:
    if not isinstance(value, list):
        raise fault("must be a list of names")
    for i, name in enumerate(value):
        if name not in table.RESPONSES_INCLUDE:
            raise fault("is not supported by this server", str(i), "unsupported")
    return value


class ResponsesBody(WishBody):
    """What is honoured; `shapes.table` says what happens to other documented fields."""

    input: Any = Field(description="A text, or a list of messages")
    instructions: str | None = None
    max_output_tokens: TokenCount | None = None
    previous_response_id: str | None = Field(default=None, min_length=1, max_length=64)
    store: bool = True
    background: bool = False
    include: Annotated[list[str], BeforeValidator(_include)] = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)

    def to_generate(self, items: Sequence[Item]) -> Generate:
        """The inference over the whole conversation. Raises InvalidRequest."""
        prompt = ChatPrompt(messages_of(items, self.instructions))
        return self.to_wish(prompt, self.max_output_tokens or UNBOUNDED, ROUTE)

    def echo(self) -> dict[str, Any]:
        """What an answer tells of its question."""
        return {
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "previous_response_id": self.previous_response_id,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "store": self.store,
            "background": self.background,
            "metadata": self.metadata,
            "model": self.model,
        }


def _names(shape: type[Shape]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in shape.model_fields.items())


_FIELDS = _names(ResponsesBody)
_LLMOS = _names(LlmosOptions)
_INNER = dict.fromkeys(table.RESPONSES_INNER, table.IGNORED)


def read_response(body: Mapping[str, Any], max_items: int) -> ResponsesBody:
    """A body of /v1/responses. Raises InvalidRequest and its kinds."""
    for name, rules in table.RESPONSES_INNER.items():
        if (inner := body.get(name)) is None:
            continue
        if not isinstance(inner, dict):
            raise InvalidRequest(f"{name!r} must be an object.", param=name)
        table.screen(inner, (), rules, name)
    kept = table.screen(body, _FIELDS, {**table.RESPONSES, **_INNER})
    if isinstance(kept.get("llmos"), dict):
        kept["llmos"] = table.screen(kept["llmos"], _LLMOS, table.NOTHING, "llmos")
    read = validate(ResponsesBody, kept)
    if isinstance(read.input, list) and len(read.input) > max_items:
        raise InvalidRequest(f"More than {max_items} items.", param="input")
    if read.background and not read.store:
        raise InvalidRequest("A response in the background is stored.", param="store")
    return read


def stored_spec(
    body: ResponsesBody, items: Sequence[Item], highest: ServiceClass, **more: Any
) -> JobSpec:
    """A response as a durable call; `more` goes into its inputs, `generate` unless it has been
    answered already. `highest` is the class its owner may ask for.

    Raises InvalidRequest for a conversation too long to be kept.
    """
    inputs: dict[str, Any] = {"request": body.echo(), "items": list(items), **more}
    if len(msgspec.json.encode(inputs)) > MAX_STORED_BYTES:
        raise InvalidRequest(
            f"The conversation is over {MAX_STORED_BYTES} bytes; 'store': false keeps none.",
            param="previous_response_id" if body.previous_response_id else "input",
        )
    wanted = body.to_options().service_class
    return JobSpec(
        program=INFER,
        inputs=inputs,
        service_class=min(ServiceClass.DEFAULT, highest) if wanted is None else wanted,
        nice=body.llmos.nice,
        metadata=body.metadata,
    )


def items_of(job: JobRecord) -> list[Item]:
    """What went into a response: all of its conversation."""
    items: list[Item] = job.spec.inputs.get("items", [])
    return items


def conversation_of(job: JobRecord) -> list[Item]:
    """What a next response goes on from: all that went in, and what came out."""
    return [*items_of(job), *output_of(job.job_id, answer_of(job))]


def answer_of(job: JobRecord) -> Answer | None:
    """What a stored call was answered with, if it was."""
    given = (job.outputs or {}).get("answer")
    return None if given is None else msgspec.convert(given, Answer)


def output_of(job_id: str, answer: Answer | None) -> list[Item]:
    """The items of an answer; its id is made of the response's, so it is always the same."""
    if answer is None:
        return []
    status = "incomplete" if answer.finish_reason == "length" else "completed"
    return [text_item(message_id(job_id), "assistant", [answer.text], status)]  # type: ignore[arg-type]


def message_id(job_id: str) -> str:
    """Of the one message that a response answers with."""
    return named("msg_", job_id)


def response_id(job_id: str) -> str:
    """The job's id in OpenAI's words."""
    return named(RESPONSE_PREFIX, job_id)
