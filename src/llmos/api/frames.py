"""Server-sent events of OpenAI's shapes as bytes: all but the text is made once per stream."""

from __future__ import annotations

from typing import Any

from llmos.abi.events import Finished, Tokens
from llmos.abi.inference import Usage
from llmos.abi.syscall import Accepted
from llmos.api.call import encode_json
from llmos.api.tooldeltas import ToolDeltas
from llmos.shapes.logprobs import chat_logprobs, text_logprobs
from llmos.shapes.outcomes import end_reason, identity, usage_object

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

_LINE_ENDS = (
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)


class Frames:
    """The events of one choice. `opening` is its first, with the role, where there is one."""

    __slots__ = (
        "_after",
        "_before",
        "_finish",
        "_head",
        "_is_chat",
        "_num_chars",
        "_preamble",
        "_tail",
        "_tools",
        "_with_ids",
        "opening",
    )

    def __init__(
        self,
        accepted: Accepted,
        index: int,
        *,
        is_chat: bool,
        include_usage: bool = False,
        with_ids: bool = False,
        tools: ToolDeltas | None = None,
    ) -> None:
        self._preamble = b"data: " + encode_json(identity(accepted, is_chat, True))[:-1]
        self._head = self._preamble + b',"choices":[{"index":%d,' % index
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._before = self._head + (b'"delta":{"content":' if is_chat else b'"text":')
        going_on = b'},"logprobs":null,"finish_reason":null'
        self._after = going_on if is_chat else going_on[1:]
        self._finish = self._head + (b'"delta":{}' if is_chat else b'"text":""')
        self._with_ids = with_ids
        self._is_chat = is_chat
        self._tools = tools
        self._num_chars = 0
        self.opening = b""
        if is_chat:
            self.opening = (
                self._head
                + b'"delta":{"role":"assistant","content":""'
                + going_on
                + b"}]"
                + self._tail
            )

    def delta(self, event: Tokens) -> bytes:
        """New text; nothing when there is none to show (half a character, a hidden token)."""
        text = event.text
        if self._tools is not None or event.logprobs is not None:
            return self._rich_delta(event)
        if self._with_ids:
            ids = b',"token_ids":' + encode_json(event.token_ids)
            return self._before + encode_line(text) + self._after + ids + b"}]" + self._tail
        if not text:
            return b""
        return self._before + encode_line(text) + self._after + b"}]" + self._tail

    def _rich_delta(self, event: Tokens) -> bytes:
        """With calls of tools, or log-probabilities."""
        delta = {"content": event.text} if event.text else {}
        if self._tools is not None:
            delta = self._tools.push(event.text)
        if not delta and not event.logprobs and not self._with_ids:
            return b""
        made: dict[str, Any] = {"text": event.text}
        if self._is_chat:
            made = {"delta": delta, "logprobs": chat_logprobs(event.logprobs)}
        else:
            made["logprobs"] = text_logprobs(event.logprobs, self._num_chars)
            self._num_chars += sum(map(len, (made["logprobs"] or {}).get("tokens", ())))
        made["finish_reason"] = None
        if self._with_ids:
            made["token_ids"] = event.token_ids
        return self._head + encode_line(made)[1:] + b"]" + self._tail

    def finish(self, event: Finished, llmos: dict[str, Any]) -> bytes:
        """The last event of the choice."""
        head, why = self._finish, str(event.reason)
        if (tools := self._tools) is not None:
            head = self._head + b'"delta":' + encode_line(tools.finish())
            why = end_reason(why, tools.has_called, as_function=tools.as_function)
        reason = b',"logprobs":null,"finish_reason":"%s","stop_reason":%s}]' % (
            why.encode(),
            encode_json(event.stop),
        )
        return head + reason + b',"llmos":' + encode_json(llmos) + self._tail

    def usage(self, usages: list[Usage], n: int = 1) -> bytes:
        """The event asked for by `stream_options.include_usage`."""
        return (
            self._preamble
            + b',"choices":[],"usage":'
            + encode_json(usage_object(usages, n))
            + b"}\n\n"
        )


def encode_line(value: Any) -> bytes:
    """JSON that no client takes for several lines."""
    made = encode_json(value)
    if not made.isascii():
        # legal in JSON and in SSE, but many clients split lines at these as well
        for char, escaped in _LINE_ENDS:
            if char in made:
                made = made.replace(char, escaped)
    return made
