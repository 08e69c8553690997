"""What is sent to a remote: OpenAI's body of a request, but for the model's name."""

from __future__ import annotations

from typing import Any

from llmos.abi.inference import (
    UNBOUNDED,
    ChatPrompt,
    Grammar,
    Prompt,
    Sampling,
    TextPrompt,
    TokensPrompt,
)
from llmos.abi.remote import RemoteSpec
from llmos.drivers.openai.wishes import grammar_fields, logit_fields, require, tool_fields
from llmos.errors import UnsupportedParameter

CHAT_PATH, TEXT_PATH = "/chat/completions", "/completions"

_PLAIN = {"temperature": 1.0, "top_p": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
"""OpenAI's own fields, and what they are when they are not sent."""

_EXTENSIONS: dict[str, Any] = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "stop_token_ids": [],
    "ignore_eos": False,
}
"""vLLM's additions, likewise."""


def make_body(
    prompt: Prompt,
    sampling: Sampling,
    spec: RemoteSpec,
    generated: str,
    max_tokens: int,
    *,
    grammar: Grammar | None = None,
) -> tuple[str, dict[str, Any]]:
    """Path and body. Neutral values are left out: some models refuse a field however it is set.

    `max_tokens` is what is left of the bound, `generated` the answer so far, after which it is to
    go on. Raises UnsupportedParameter for what the remote is not known to honour.
    """
    path, body = _begin(prompt, spec, generated)
    if generated and grammar is not None:
        raise UnsupportedParameter(
            "a structured answer cannot go on elsewhere: its grammar would begin anew",
            param="grammar",
        )
    is_chat = path == CHAT_PATH
    body |= logit_fields(sampling, is_chat=is_chat)
    body |= grammar_fields(grammar, spec, is_chat=is_chat)
    for name, neutral in _PLAIN.items():
        if getattr(sampling, name) != neutral:
            body[name] = getattr(sampling, name)
    for name, neutral in _EXTENSIONS.items():
        if getattr(sampling, name) != neutral:
            require(spec, name)
            body[name] = getattr(sampling, name)
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = sampling.stop
    if max_tokens != UNBOUNDED:
        body[spec.tokens_field if is_chat else "max_tokens"] = max_tokens
    body["stream"] = True
    if spec.usage_in_stream:
        body["stream_options"] = {"include_usage": True}
    return path, body


def _begin(prompt: Prompt, spec: RemoteSpec, generated: str) -> tuple[str, dict[str, Any]]:
    if isinstance(prompt, ChatPrompt):
        body: dict[str, Any] = {"messages": prompt.messages, **tool_fields(prompt)}
        if prompt.template_kwargs:
            require(spec, "chat_template_kwargs")
            body["chat_template_kwargs"] = prompt.template_kwargs
        if generated:
            body["messages"] = [*prompt.messages, {"role": "assistant", "content": generated}]
            if spec.extensions:
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        return CHAT_PATH, body
    if isinstance(prompt, TextPrompt):
        return TEXT_PATH, {"prompt": prompt.text + generated}
    if generated:
        raise UnsupportedParameter(
            "an answer to token ids cannot go on elsewhere: its own ids are unknown", param="prompt"
        )
    assert isinstance(prompt, TokensPrompt)
    return TEXT_PATH, {"prompt": prompt.token_ids}
