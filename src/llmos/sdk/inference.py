"""Chat and text completions in OpenAI's shapes: bodies out, answers and streams in. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from llmos.abi.inference import Usage
from llmos.errors import ProtocolViolation, ServerUnreachable
from llmos.sdk.config import ClientConfig
from llmos.sdk.results import Choice, Chunk, Completion, ToolDelta
from llmos.sdk.sse import SSEDecoder
from llmos.sdk.wire import (
    Call,
    Patience,
    Request,
    StreamCall,
    WholeBody,
    decode,
    encode,
    error_from_envelope,
)

Messages = Sequence[Mapping[str, Any]]
Prompt = str | Sequence[int]


class _Details(msgspec.Struct):
    cached_tokens: int | None = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None
    cost: float | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Text(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Text | None = None
    delta: _Text | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class _Answer(msgspec.Struct):
    id: str = ""
    model: str = ""
    created: int = 0
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: dict[str, Any] | None = None
    llmos: Any = None


def chat(
    config: ClientConfig, model: str, messages: Messages, *, stream: bool, **sampling: Any
) -> Call[Completion] | StreamCall[Chunk]:
    """`POST /v1/chat/completions`."""
    body = {"model": model, "messages": [dict(message) for message in messages], **sampling}
    return _infer(config, "/v1/chat/completions", body, stream)


def complete(
    config: ClientConfig, model: str, prompt: Prompt, *, stream: bool, **sampling: Any
) -> Call[Completion] | StreamCall[Chunk]:
    """`POST /v1/completions`: text, or token ids taken as they are."""
    body = {
        "model": model,
        "prompt": prompt if isinstance(prompt, str) else list(prompt),
        **sampling,
    }
    return _infer(config, "/v1/completions", body, stream)


def _infer(
    config: ClientConfig, path: str, body: dict[str, Any], stream: bool
) -> Call[Completion] | StreamCall[Chunk]:
    if not stream:
        request = Request("POST", path, encode(body), Patience.LONG)
        return Call(request, lambda: WholeBody(parse_completion, config.max_answer_bytes))
    body = {"stream_options": {"include_usage": True}, **body, "stream": True}
    request = Request("POST", path, encode(body), Patience.STREAM)
    return StreamCall(request, lambda: ChunkParser(config.max_event_bytes))


def parse_completion(body: bytes) -> Completion:
    """A whole answer. Raises ProtocolViolation."""
    answer = decode(body, _Answer)
    if not answer.choices:
        raise ProtocolViolation("the server's answer has no choices")
    choices = [
        Choice(c.index, _text(c), c.finish_reason, c.token_ids or []) for c in answer.choices
    ]
    usage = _usage(answer.usage) or Usage()
    return Completion(answer.id, answer.model, answer.created, choices, usage, answer.llmos)


class ChunkParser:
    """A stream's bytes to chunks. An error event is raised as the error it names."""

    def __init__(self, max_event_bytes: int) -> None:
        self._decoder = SSEDecoder(max_event_bytes)
        self._done = False

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """The chunks that `data` completes, lazily: those before an error come before it."""
        for event in self._decoder.feed(data):
            if event.data == "[DONE]":
                self._done = True
            if not self._done:
                yield from _chunks(event.data)

    def finish(self) -> None:
        if not self._done:
            raise ServerUnreachable("the stream broke off before the answer was complete")


def _chunks(data: str) -> list[Chunk]:
    answer = decode(data, _Answer)
    if answer.error is not None:
        raise error_from_envelope({"error": answer.error})
    usage = _usage(answer.usage)
    chunks = [
        Chunk(_text(c), c.finish_reason, None, c.index, c.token_ids or [], answer.llmos, _calls(c))
        for c in answer.choices
        if _text(c) or c.finish_reason or c.token_ids or _calls(c)
    ]
    if usage is not None:
        chunks.append(Chunk(usage=usage))
    return chunks


def _text(choice: _Choice) -> str:
    holder = choice.message or choice.delta
    return (holder.content if holder else choice.text) or ""


def _calls(choice: _Choice) -> list[ToolDelta]:
    if choice.delta is None or not choice.delta.tool_calls:
        return []
    return [
        ToolDelta(
            call.index,
            call.id or "",
            (call.function.name if call.function else "") or "",
            (call.function.arguments if call.function else "") or "",
        )
        for call in choice.delta.tool_calls
    ]


def _usage(usage: _Usage | None) -> Usage | None:
    if usage is None:
        return None
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens if details else 0) or 0
    return Usage(usage.prompt_tokens, usage.completion_tokens, cached, usage.cost)
