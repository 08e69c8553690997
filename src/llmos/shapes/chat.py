"""The body of /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llmos.abi.inference import UNBOUNDED, ChatPrompt
from llmos.abi.program import Generate
from llmos.shapes.check import Shape
from llmos.shapes.fields import TokenCount, fault
from llmos.shapes.options import InferenceBody

LATER_ROLES = ("tool", "function")
LATER_PARTS = ("image_url", "input_audio", "file", "refusal")


def _role(value: Any) -> Any:
    if value in LATER_ROLES:
        raise fault("messages of tools are not supported by this server", kind="unsupported")
    # templates know no `developer`: it is the system's voice under a newer name
    return "system" if value == "developer" else value


def _content(value: Any) -> Any:
    """Text, or text parts joined by newlines: templates take plain text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise fault("must be a text or a non-empty list of text parts")
    return "\n".join(_part(part, str(i)) for i, part in enumerate(value))


def _part(part: Any, at: str) -> str:
    if not isinstance(part, dict):
        raise fault("must be an object", at)
    kind = part.get("type")
    if kind in LATER_PARTS:
        raise fault(f"parts of type {kind!r} are not supported", f"{at}.type", "unsupported")
    if kind != "text":
        raise fault("must be 'text'", f"{at}.type")
    for key in part:
        if key not in {"type", "text", "prompt_cache_breakpoint"}:
            raise fault("unknown field", f"{at}.{key[:64]}")
    if not isinstance(text := part.get("text"), str):
        raise fault("must be a text", f"{at}.text")
    return text


class Message(Shape):
    """One message; `content` is plain text once it is read."""

    role: Annotated[Literal["system", "user", "assistant"], BeforeValidator(_role)]
    content: Annotated[
        str, BeforeValidator(_content, json_schema_input_type=str | list[dict[str, str]])
    ]
    name: str | None = Field(default=None, min_length=1, max_length=128)


class ChatBody(InferenceBody):
    """What is honoured; `shapes.table` says what happens to other documented fields."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: TokenCount | None = None

    @property
    def token_limit(self) -> int:
        """The smaller of the two names of one limit."""
        given = [n for n in (self.max_tokens, self.max_completion_tokens) if n is not None]
        return min(given, default=UNBOUNDED)

    def to_prompt(self) -> ChatPrompt:
        """The abi's words."""
        return ChatPrompt(
            [
                {"role": m.role, "content": m.content}
                if m.name is None
                else {"role": m.role, "content": m.content, "name": m.name}
                for m in self.messages
            ]
        )

    def to_generate(self) -> Generate:
        """The inference it asks for. Raises InvalidRequest."""
        return self.to_wish(self.to_prompt(), self.token_limit, "chat")
