"""The body of /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llmos.abi.inference import UNBOUNDED, ChatPrompt, Grammar
from llmos.abi.program import Generate
from llmos.errors import InvalidRequest
from llmos.shapes import table
from llmos.shapes.check import Shape
from llmos.shapes.fields import TokenCount, TopLogprobs
from llmos.shapes.functions import (
    as_tools,
    read_function_choice,
    read_functions,
    read_said_call,
)
from llmos.shapes.options import InferenceBody
from llmos.shapes.parts import Content, images_of, located, read_content
from llmos.shapes.structured import format_grammar
from llmos.shapes.toolcalls.stream import Wanted
from llmos.shapes.tools import (
    Tool,
    check_choice,
    narrow,
    read_calls,
    read_choice,
    read_tools,
    wanted_of,
)

_OWNERS = {"tool_calls": "assistant", "function_call": "assistant", "tool_call_id": "tool"}
"""Fields of a message that belong to one role."""


def _role(value: Any) -> Any:
    # templates know no `developer`: it is the system's voice under a newer name
    return "system" if value == "developer" else value


class Message(Shape):
    """One message; `content` without images is plain text once it is read."""

    beside = table.MESSAGE

    role: Annotated[
        Literal["system", "user", "assistant", "tool", "function"],
        BeforeValidator(
            _role,
            json_schema_input_type=Literal[
                "system", "developer", "user", "assistant", "tool", "function"
            ],
        ),
    ] = Field(description="Who says it; `developer` is the same as `system`")
    content: Annotated[
        Content, BeforeValidator(read_content, json_schema_input_type=str | list[dict[str, Any]])
    ] = Field(default="", description="A text, or parts of text and images (`image_url`)")
    name: str | None = Field(
        default=None, min_length=1, max_length=128, description="Of the function whose answer it is"
    )
    tool_calls: Annotated[
        list[Any], BeforeValidator(read_calls, json_schema_input_type=list[dict[str, Any]])
    ] = Field(default_factory=list, description="What the assistant called")
    tool_call_id: str | None = Field(
        default=None, min_length=1, max_length=128, description="The call that a `tool` answers"
    )
    function_call: Annotated[
        dict[str, str] | None,
        BeforeValidator(read_said_call, json_schema_input_type=dict[str, Any]),
    ] = Field(default=None, description="OpenAI's older word for `tool_calls`")

    def to_dict(self) -> dict[str, Any]:
        """As templates take it, once `as_tools` has seen it."""
        made: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.name is not None:
            made["name"] = self.name
        if self.tool_calls:
            made["tool_calls"] = self.tool_calls
        if self.tool_call_id is not None:
            made["tool_call_id"] = self.tool_call_id
        if self.function_call is not None:
            made["function_call"] = self.function_call
        return made


class ChatBody(InferenceBody):
    """What is honoured; docs/openai.md says what happens to other documented fields."""

    beside = table.CHAT

    messages: list[Message] = Field(min_length=1, description="The conversation, oldest first")
    max_completion_tokens: TokenCount | None = Field(
        default=None, description="OpenAI's newer word for `max_tokens`; the smaller one holds"
    )
    logprobs: bool = Field(default=False, description="Tell how likely each token was")
    top_logprobs: TopLogprobs | None = Field(
        default=None, description="And so many of the likeliest there"
    )
    response_format: Annotated[
        Any, BeforeValidator(format_grammar, json_schema_input_type=dict[str, Any])
    ] = Field(
        default=None,
        description="`text`, `json_object` or `json_schema`: what the answer has to be",
    )
    tools: Annotated[
        list[Any], BeforeValidator(read_tools, json_schema_input_type=list[dict[str, Any]])
    ] = Field(default_factory=list, description="Functions the model may call")
    tool_choice: Annotated[
        str, BeforeValidator(read_choice, json_schema_input_type=str | dict[str, Any])
    ] = Field(default="auto", description="`auto`, `none`, `required`, or one function")
    parallel_tool_calls: bool = Field(default=True, description="Several calls in one answer")
    functions: Annotated[
        list[Any], BeforeValidator(read_functions, json_schema_input_type=list[dict[str, Any]])
    ] = Field(default_factory=list, description="OpenAI's older word for `tools`")
    function_call: Annotated[
        str, BeforeValidator(read_function_choice, json_schema_input_type=str | dict[str, Any])
    ] = Field(default="auto", description="OpenAI's older word for `tool_choice`")

    @property
    def has_images(self) -> bool:
        """Then their bytes are put into files before anybody is asked."""
        return any(images_of(message.content) for message in self.messages)

    @property
    def token_limit(self) -> int:
        """The smaller of the two names of one limit."""
        given = [n for n in (self.max_tokens, self.max_completion_tokens) if n is not None]
        return min(given, default=UNBOUNDED)

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def grammars(self) -> dict[str, Grammar | None]:
        return {"response_format": self.response_format, **super().grammars()}

    @property
    def wanted(self) -> Wanted:
        """Which calls are looked for in the answer."""
        if self.functions:
            return wanted_of(self.functions, self.function_call, parallel=False, as_function=True)
        return wanted_of(self.tools, self.tool_choice, self.parallel_tool_calls)

    def to_prompt(self) -> ChatPrompt:
        """The abi's words. Raises InvalidRequest."""
        check_messages(self.messages)
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("'top_logprobs' needs 'logprobs'.", param="top_logprobs")
        messages = as_tools(
            message.to_dict() | {"content": located(message.content, f"messages.{i}.content")}
            for i, message in enumerate(self.messages)
        )
        form = self.llmos.tool_format
        if not self.functions and self.function_call in {"none", "auto"}:
            parallel = self.parallel_tool_calls
            return chat_prompt(messages, self.tools, self.tool_choice, parallel, form)
        if self.tools:
            raise InvalidRequest("'functions' is another word for 'tools'.", param="functions")
        check_choice(self.function_call, self.functions, ("function_call", "functions"))
        return chat_prompt(messages, self.functions, self.function_call, False, form)

    def to_generate(self) -> Generate:
        """The inference it asks for. Raises InvalidRequest."""
        return self.to_wish(self.to_prompt(), self.token_limit, "chat")


def chat_prompt(
    messages: list[dict[str, Any]],
    tools: list[Tool],
    choice: str,
    parallel: bool,
    tool_format: str | None,
) -> ChatPrompt:
    """Messages and tools. Raises InvalidRequest for a choice of none there is."""
    check_choice(choice, tools)
    tools, choice = narrow(tools, choice)
    if not tools:
        return ChatPrompt(messages)
    return ChatPrompt(
        messages,
        tools,
        tool_choice=choice,
        parallel_tools=parallel,
        tool_format=tool_format or "",
    )


def check_messages(messages: Sequence[Message]) -> None:
    """Raises InvalidRequest for a message without what its role has."""
    for i, message in enumerate(messages):
        if message.role == "function" and message.name is None:
            raise InvalidRequest(
                f"'messages.{i}' is a function's answer: it needs 'name'.",
                param=f"messages.{i}.name",
            )
        if message.role == "tool" and message.tool_call_id is None:
            raise InvalidRequest(
                f"'messages.{i}' answers a call: it needs 'tool_call_id'.",
                param=f"messages.{i}.tool_call_id",
            )
        for name, owner in _OWNERS.items():
            if getattr(message, name) and message.role != owner:
                raise InvalidRequest(
                    f"'messages.{i}.{name}' belongs to the role {owner!r}.",
                    param=f"messages.{i}.{name}",
                )
        if message.role != "user" and (images := images_of(message.content)):
            raise InvalidRequest(
                "Images belong to the role 'user'.", param=f"messages.{i}.content.{images[0]}"
            )
        if "content" not in message.model_fields_set and not (
            message.tool_calls or message.function_call
        ):
            raise InvalidRequest(
                f"Invalid value for 'messages.{i}.content': Field required.",
                param=f"messages.{i}.content",
            )
