"""The body of /v1/responses, and a stored response as the durable call it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from pydantic import BeforeValidator, Field

from llmos.abi.inference import UNBOUNDED, Grammar
from llmos.abi.jobs import INFER, JobRecord, JobSpec
from llmos.abi.principal import ServiceClass
from llmos.abi.program import Answer, Generate
from llmos.errors import InvalidRequest, LLMOSError
from llmos.shapes import table
from llmos.shapes.chat import chat_prompt
from llmos.shapes.check import screen, validate
from llmos.shapes.fields import Metadata, TokenCount, TopLogprobs, fault
from llmos.shapes.items import Item, call_item, messages_of, places_of, text_item, text_part
from llmos.shapes.logprobs import token_logprobs
from llmos.shapes.names import RESPONSE_PREFIX, named
from llmos.shapes.options import LlmosOptions, WishBody
from llmos.shapes.structured import text_format_grammar
from llmos.shapes.toolcalls.stream import Wanted, call_id, hear
from llmos.shapes.tools import read_choice, read_flat_tools, wanted_of

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


_NAMES = {"max_tokens": "max_output_tokens", "prompt": "input"}
"""Of a chat's fields, others of this body."""

PLAIN_TEXT = {"type": "text"}


class TextFormat(NamedTuple):
    """`text.format` as it was given, and what it says."""

    given: dict[str, Any]
    grammar: Grammar | None


def _text(value: Any) -> Any:
    """Of `text`, whose other fields the table has looked at."""
    given = (value.get("format") if isinstance(value, dict) else None) or PLAIN_TEXT
    return TextFormat(given, text_format_grammar(given))


class ResponsesBody(WishBody):
    """What is honoured; docs/openai.md says what happens to other documented fields."""

    beside = table.RESPONSES

    input: Any = Field(description="A text, or a list of messages")
    instructions: str | None = Field(
        default=None, description="Said by the system before the input; not kept for the next turn"
    )
    max_output_tokens: TokenCount | None = Field(default=None, description="Of the answer")
    previous_response_id: str | None = Field(
        default=None, min_length=1, max_length=64, description="Go on from this stored response"
    )
    store: bool = Field(default=True, description="Keep the answer, to be read and gone on from")
    background: bool = Field(
        default=False, description="Answer at once with a response in progress, to be polled"
    )
    include: Annotated[list[str], BeforeValidator(_include)] = Field(
        default_factory=list,
        description="Parts of items to add: `message.output_text.logprobs`",
    )
    metadata: Metadata = Field(
        default_factory=dict,
        description="Kept with it: 16 pairs, keys of 64, values of 512 characters",
    )
    top_logprobs: TopLogprobs = Field(
        default=0, description="Tell of so many of the likeliest tokens"
    )
    text: Annotated[Any, BeforeValidator(_text, json_schema_input_type=dict[str, Any])] = Field(
        default_factory=lambda: TextFormat(PLAIN_TEXT, None),
        description="`format`: what the answer has to be",
    )
    tools: Annotated[
        list[Any], BeforeValidator(read_flat_tools, json_schema_input_type=list[dict[str, Any]])
    ] = Field(default_factory=list, description="Functions the model may call")
    tool_choice: Annotated[
        str, BeforeValidator(read_choice, json_schema_input_type=str | dict[str, Any])
    ] = Field(default="auto", description="`auto`, `none`, `required`, or one function")
    parallel_tool_calls: bool = Field(default=True, description="Several calls in one answer")

    @property
    def num_logprobs(self) -> int | None:
        return self.top_logprobs if self.top_logprobs or table.LOGPROBS in self.include else None

    def grammars(self) -> dict[str, Grammar | None]:
        return {"text.format": self.text.grammar, **super().grammars()}

    def to_generate(self, items: Sequence[Item]) -> Generate:
        """The inference over the whole conversation. Raises InvalidRequest."""
        prompt = chat_prompt(
            messages_of(items, self.instructions, len(items) - self.num_new),
            self.tools,
            self.tool_choice,
            self.parallel_tool_calls,
            self.llmos.tool_format,
        )
        return self.to_wish(prompt, self.max_output_tokens or UNBOUNDED, ROUTE)

    def in_its_words(self, error: LLMOSError, items: Sequence[Item]) -> LLMOSError:
        """A refusal of an inference, which names parts of a chat, by the names of this body."""
        name = error.param or ""
        head, _, rest = name.partition(".")
        if head == "messages":
            index, _, part = rest.partition(".")
            error.param = self._place(items, index, part)
        elif name == "logprobs":
            error.param = "top_logprobs" if self.top_logprobs else "include"
        elif name == "grammar":
            given = [field for field, grammar in self.grammars().items() if grammar]
            error.param = given[0] if given else "tools"
        else:
            error.param = _NAMES.get(name, error.param)
        return error

    def _place(self, items: Sequence[Item], index: str, part: str) -> str:
        """Of a part of message number `index`, as far as the body has a name for it."""
        places = places_of(items, self.instructions, len(items) - self.num_new)
        where = places[int(index)] if index.isdecimal() and int(index) < len(places) else "input"
        if not where.startswith("input."):
            return where
        return f"{where}.{part}" if isinstance(self.input, list) else "input"

    @property
    def num_new(self) -> int:
        """Items that this body adds to the conversation."""
        return len(self.input) if isinstance(self.input, list) else 1

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
            "top_logprobs": self.top_logprobs,
            "text": {"format": self.text.given, "verbosity": "medium"},
            "tools": [{"type": "function", **tool["function"]} for tool in self.tools],
            "tool_choice": self.tool_choice,
            "parallel_tool_calls": self.parallel_tool_calls,
        }


def wanted_by(echo: Mapping[str, Any]) -> Wanted:
    """Which calls are looked for in the answer, by what is kept of the question."""
    tools = [{"function": tool} for tool in echo.get("tools", ())]
    choice, parallel = echo.get("tool_choice", "auto"), echo.get("parallel_tool_calls", True)
    return wanted_of(tools, choice, parallel)


def read_response(body: Mapping[str, Any], max_items: int) -> ResponsesBody:
    """A body of /v1/responses. Raises InvalidRequest and its kinds."""
    for name, rules in table.RESPONSES_INNER.items():
        if (inner := body.get(name)) is None:
            continue
        if not isinstance(inner, dict):
            raise InvalidRequest(f"{name!r} must be an object.", param=name)
        table.screen(inner, (), rules, name)
    kept = screen(ResponsesBody, body)
    if isinstance(kept.get("llmos"), dict):
        kept["llmos"] = screen(LlmosOptions, kept["llmos"], "llmos")
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
    echo = job.spec.inputs["request"]
    return [*items_of(job), *output_of(job.job_id, answer_of(job), echo)]


def answer_of(job: JobRecord) -> Answer | None:
    """What a stored call was answered with, if it was."""
    given = (job.outputs or {}).get("answer")
    return None if given is None else msgspec.convert(given, Answer)


def output_of(job_id: str, answer: Answer | None, echo: Mapping[str, Any]) -> list[Item]:
    """The items of an answer to what `echo` keeps of its question. Ids are made of the response's,
    so they are always the same."""
    if answer is None:
        return []
    status: Literal["incomplete", "completed"] = "completed"
    if answer.finish_reason == "length":
        status = "incomplete"
    heard = hear(answer.text, answer.tool_format, wanted_by(echo))
    items = [
        call_item(function_id(job_id, i), call_id(job_id, i, answer.tool_format), *said, status)
        for i, said in enumerate((call.name, call.arguments) for call in heard.calls)
    ]
    if heard.text or not items:
        logprobs = token_logprobs(answer.logprobs or ())
        item = text_item(message_id(job_id), "assistant", [], status)
        item["content"] = [text_part(heard.text, logprobs=logprobs)]
        items.insert(heard.num_before, item)
    return items


def function_id(job_id: str, index: int) -> str:
    """Of a call that a response makes."""
    return named("fc_", job_id) + (f"_{index}" if index else "")


def message_id(job_id: str) -> str:
    """Of the one message that a response answers with."""
    return named("msg_", job_id)


def response_id(job_id: str) -> str:
    """The job's id in OpenAI's words."""
    return named(RESPONSE_PREFIX, job_id)
