"""One answer as it arrives: OpenAI's chunks into text, an end and what it took."""

from __future__ import annotations

import json
from typing import Any

from llmos.abi.events import FinishReason, Logprobs
from llmos.abi.inference import Usage
from llmos.drivers.openai.faults import Fault, failed, of_event
from llmos.drivers.openai.logprobs import read_logprobs
from llmos.drivers.openai.render import Rendering
from llmos.errors import UnsupportedParameter

DONE = b"[DONE]"

_REASONS = {
    "stop": FinishReason.STOP,
    "tool_calls": FinishReason.STOP,
    "function_call": FinishReason.STOP,
    "length": FinishReason.LENGTH,
}


class Answer:
    """Of one attempt. `take` each chunk; `reason`, `usage` and `stop` are what has come of them.

    Knows chat and text completions, streamed and whole: fields that it does not know are read over.
    """

    def __init__(self, host: str, secrets: list[str], *, wants_logprobs: bool = False) -> None:
        self._host = host
        self._secrets = secrets
        self._lacks_logprobs = wants_logprobs
        self._logprobs: list[Logprobs] = []
        self._rendering = Rendering()
        self._half = ""
        self.reason: FinishReason | None = None
        self.usage: Usage | None = None
        self.stop: str | int | None = None
        self._is_done = False

    def has_ended(self) -> bool:
        """The remote has said that nothing follows."""
        return self._is_done

    def take(self, data: bytes) -> str:
        """The text of a chunk: whole characters. Raises Fault."""
        if data.strip() == DONE:
            self._is_done = True
            return self._rendering.close()
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise Fault(failed("broken", self._host, "sent what is no JSON")) from None
        if not isinstance(chunk, dict):
            raise Fault(failed("broken", self._host, "sent a chunk that is no object"))
        if chunk.get("error"):
            raise of_event(chunk["error"], self._host, self._secrets)
        self._take_usage(chunk.get("usage"))
        choices = chunk.get("choices")
        if choices is None and "usage" not in chunk:
            raise Fault(failed("broken", self._host, "sent a chunk without choices"))
        text = ""
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                text += self._take_choice(choice)
        return self._whole(text)

    def take_whole(self, data: bytes) -> str:
        """Of an answer that is no stream. Raises Fault."""
        text = self.take(data)
        if self.reason is None:
            raise Fault(failed("broken", self._host, "sent an answer without an end"))
        return text + self.take(DONE)

    def take_logprobs(self) -> list[Logprobs]:
        """What has come of them since."""
        found, self._logprobs = self._logprobs, []
        return found

    def _take_choice(self, choice: dict[str, Any]) -> str:
        self._hear_logprobs(choice.get("logprobs"))
        delta = choice.get("delta") or choice.get("message")
        text = choice.get("text") or ""
        if isinstance(delta, dict):
            text = self._rendering.take(delta)
        if not isinstance(text, str):
            raise Fault(failed("broken", self._host, "sent a text that is none"))
        if self._lacks_logprobs and _has_words(choice):
            what = f"{self._host} answers without the log-probabilities it was asked for"
            lacking = UnsupportedParameter(what, param="logprobs")
            raise Fault(lacking, again=False, blames=False)
        reason = choice.get("finish_reason")
        if reason == "content_filter":
            error = failed("filtered", self._host, "ended the answer by its content filter")
            error.retryable = False
            raise Fault(error, again=False, elsewhere=False, blames=False)
        if reason:
            self.reason = _REASONS.get(reason, FinishReason.STOP)
            stop = choice.get("stop_reason")
            self.stop = stop if isinstance(stop, str | int) else None
        return text

    def _hear_logprobs(self, found: Any) -> None:
        try:
            heard = read_logprobs(found)
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
            what = "sent log-probabilities that are none"
            raise Fault(failed("broken", self._host, what)) from None
        if heard:
            self._lacks_logprobs = False
            self._logprobs += heard

    def _take_usage(self, usage: Any) -> None:
        self.usage = count_usage(usage) or self.usage

    def _whole(self, text: str) -> str:
        """JSON may cut a character in two (`\\ud83d`, then `\\ude00`); a half that stays alone is
        replaced."""
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _has_words(choice: dict[str, Any]) -> bool:
    """A call of a tool has no log-probabilities with everybody."""
    delta = choice.get("delta") or choice.get("message")
    return bool(choice.get("text") or (isinstance(delta, dict) and delta.get("content")))


def count_usage(usage: Any) -> Usage | None:
    """What the remote has counted; None: it says nothing of it."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(cached),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else 0
