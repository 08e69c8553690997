"""What came of a request as OpenAI's answer: the same JSON for a live answer and for a batch's."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from llmos.abi.events import Logprobs, Served
from llmos.abi.inference import Usage
from llmos.abi.principal import ServiceClass
from llmos.abi.program import Answer
from llmos.shapes.logprobs import chat_logprobs, text_logprobs
from llmos.shapes.options import TIER_OF
from llmos.shapes.toolcalls.stream import Heard, call_id, call_object


class Head(Protocol):
    """What is known of a request once it was accepted: `syscall.Accepted`, `program.Answer`."""

    @property
    def request_id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def service_class(self) -> int: ...
    @property
    def created_ns(self) -> int: ...


class Choice(NamedTuple):
    """One generation. `token_ids` where the caller asked for them; `heard`: what it came to where
    calls of tools were looked for, whose ids are made of `request_id`; `as_function`: as `Wanted`
    has it. `echoed`: of the prompt, which the text then begins with.
    """

    text: str
    reason: str
    stop: str | int | None
    usage: Usage
    token_ids: list[int] | None = None
    logprobs: list[Logprobs] | None = None
    echoed: list[Logprobs] | None = None
    heard: Heard | None = None
    as_function: bool = False
    tool_format: str = ""
    request_id: str = ""


def likelihood(choice: Choice) -> float:
    """The mean log-probability of its tokens; an empty answer is as likely as can be."""
    found = [one.drawn.logprob for one in choice.logprobs or ()]
    return sum(found) / len(found) if found else 0.0


@functools.lru_cache(maxsize=1024)
def fingerprint(model: str) -> str:
    """OpenAI's `system_fingerprint`: equal for answers of an equal model version."""
    return "fp_" + hashlib.sha256(model.encode()).hexdigest()[:12]


def usage_object(usages: Sequence[Usage], n: int = 1) -> dict[str, Any]:
    """OpenAI's `usage` of all choices together; of `n` choices in a row the prompt is one."""
    prompts = usages[::n]
    prompt = sum(u.prompt_tokens for u in prompts)
    completion = sum(u.completion_tokens for u in usages)
    made: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(u.cached_tokens for u in prompts)},
    }
    costs = [u.cost for u in usages if u.cost is not None]
    if costs:  # in US dollars, of a model that somebody else is paid for
        made["cost"] = sum(costs)
    return made


def identity(head: Head, is_chat: bool, is_stream: bool) -> dict[str, Any]:
    """What every answer and every chunk begins with."""
    suffix = head.request_id.removeprefix("req_")
    kind = "chat.completion" if is_chat else "text_completion"
    return {
        "id": f"chatcmpl-{suffix}" if is_chat else f"cmpl-{suffix}",
        "object": f"{kind}.chunk" if is_chat and is_stream else kind,
        "created": head.created_ns // 1_000_000_000,
        "model": head.model,
        "system_fingerprint": fingerprint(head.model),
        "service_tier": TIER_OF[ServiceClass(head.service_class)],
    }


def chat_answer(
    head: Head, choices: Sequence[Choice], reports: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The body of an unstreamed chat completion; one report (`llmos`) for each choice."""
    return {
        **identity(head, is_chat=True, is_stream=False),
        "choices": [
            {"index": i, "message": _message(c), **_end(c, chat_logprobs(c.logprobs))}
            for i, c in enumerate(choices)
        ],
        "usage": usage_object([c.usage for c in choices], len(choices)),
        "llmos": reports[0] if len(reports) == 1 else list(reports),
    }


def completion_answer(
    head: Head,
    choices: Sequence[Choice],
    reports: Sequence[dict[str, Any]],
    n: int = 1,
    usages: Sequence[Usage] | None = None,
) -> dict[str, Any]:
    """The body of an unstreamed text completion; one report (`llmos`) for each choice. `usages` of
    all that was generated, `n` for each prompt; None: that is what is told."""
    return {
        **identity(head, is_chat=False, is_stream=False),
        "choices": [
            {"index": i, "text": _echo(c) + c.text, **_end(c, _text_logprobs(c))}
            for i, c in enumerate(choices)
        ],
        "usage": usage_object([c.usage for c in choices] if usages is None else usages, n),
        "llmos": reports[0] if len(reports) == 1 else list(reports),
    }


def _echo(choice: Choice) -> str:
    pieces = b"".join(one.drawn.piece for one in choice.echoed or ())
    return pieces.decode("utf-8", "replace")


def _text_logprobs(choice: Choice) -> dict[str, Any] | None:
    """Those of an echoed prompt first; of its first token there are none."""
    if choice.logprobs is None or choice.echoed is None:
        return text_logprobs(choice.logprobs)
    made = text_logprobs([*choice.echoed, *choice.logprobs])
    assert made is not None
    made["token_logprobs"][0] = made["top_logprobs"][0] = None
    return made


def _message(choice: Choice) -> dict[str, Any]:
    made: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.heard is not None and choice.heard.calls:
        made["content"] = choice.heard.text or None
        if choice.as_function:
            (call,) = choice.heard.calls
            return made | {"function_call": call_object(call, "")["function"]}
        made["tool_calls"] = [
            call_object(call, call_id(choice.request_id, i, choice.tool_format))
            for i, call in enumerate(choice.heard.calls)
        ]
    elif choice.heard is not None:
        made["content"] = choice.heard.text
    return made


def _end(choice: Choice, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    called = choice.heard is not None and bool(choice.heard.calls)
    made: dict[str, Any] = {
        "logprobs": logprobs,
        "finish_reason": end_reason(choice.reason, called, as_function=choice.as_function),
        "stop_reason": choice.stop,
    }
    if choice.token_ids is not None:
        made["token_ids"] = choice.token_ids
    return made


def end_reason(reason: str, called: bool, *, as_function: bool = False) -> str:
    """Why an answer ended: one that is whole and calls tools waits for what they say."""
    if not called or reason != "stop":
        return reason
    return "function_call" if as_function else "tool_calls"


def report(answer: Answer) -> dict[str, Any]:
    """The `llmos` object of an answer that nobody waited for: it has no timing."""
    ended_as = None if answer.served is None else answer.served.service_class
    return {
        "request_id": answer.request_id,
        "model": answer.model,
        "deterministic": answer.deterministic,
        "class": ServiceClass(answer.service_class if ended_as is None else ended_as).name.lower(),
        "timing": None,
        **how_served(answer.served),
    }


def how_served(served: Served | None) -> dict[str, Any]:
    """What the `llmos` object tells of rows and memory given up; None where nobody knows."""
    if served is None:
        return {"preemptions": None, "suspensions": None, "context": None}
    return {
        "preemptions": served.num_preemptions,
        "suspensions": served.num_suspensions,
        "context": _context(served),
    }


def _context(served: Served) -> str:
    if served.num_recomputed:
        return "recomputed"
    return "snapshot" if served.num_suspensions else "kept"
