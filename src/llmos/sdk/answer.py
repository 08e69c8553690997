"""An answer as it arrives: its text, its calls of tools, how fast it came."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from llmos.sdk.draw import amounts
from llmos.sdk.draw.cards import short
from llmos.sdk.draw.columns import one_line
from llmos.sdk.draw.sheet import note, said, sheet
from llmos.sdk.draw.words import plain
from llmos.sdk.results import Chunk

MAX_PRETTY_CHARS = 20_000


@dataclass(slots=True)
class ToolUse:
    """One call of a tool. `arguments` are JSON, while they arrive a part of it."""

    id: str = ""
    name: str = ""
    arguments: str = ""

    @property
    def pretty(self) -> str:
        """The arguments with one to a line, where they are whole."""
        if len(self.arguments) > MAX_PRETTY_CHARS:
            return self.arguments
        try:
            return json.dumps(json.loads(self.arguments), ensure_ascii=False, indent=2)
        except (ValueError, RecursionError):
            return self.arguments


@dataclass(slots=True, repr=False)
class Answer:
    """Fed with chunks and the time (seconds, of any clock) each came at."""

    asked_s: float
    text: str = ""
    calls: dict[int, ToolUse] = field(default_factory=dict)
    request_id: str = ""
    finish_reason: str | None = None
    num_tokens: int = 0
    is_stopped: bool = False
    first_s: float | None = None
    last_s: float | None = None
    _num_chunks: int = 0
    _timing: dict[str, float] = field(default_factory=dict)

    def feed(self, chunk: Chunk, now_s: float) -> None:
        """One more piece."""
        if chunk.text or chunk.tool_calls:
            self.first_s = self.first_s if self.first_s is not None else now_s
            self.last_s = now_s
            self._num_chunks += 1
        self.text += chunk.text
        for delta in chunk.tool_calls:
            call = self.calls.setdefault(delta.index, ToolUse())
            call.id = call.id or delta.id
            call.name = call.name or delta.name
            call.arguments += delta.arguments
        self.finish_reason = chunk.finish_reason or self.finish_reason
        if chunk.llmos is not None:
            self.request_id = str(chunk.llmos.get("request_id", ""))
            timing = chunk.llmos.get("timing")
            if isinstance(timing, dict):
                self._timing = {k: v for k, v in timing.items() if isinstance(v, int | float)}
        if chunk.usage is not None:
            self.num_tokens = chunk.usage.completion_tokens

    @property
    def first_after_s(self) -> float | None:
        """From asking to the first piece; by the server's clock once it has said so."""
        if (said_ms := self._timing.get("first_token_ms")) is not None:
            return said_ms / 1000
        return None if self.first_s is None else self.first_s - self.asked_s

    @property
    def tokens_per_s(self) -> float | None:
        """Of what came after the first piece; None while there is too little to tell.

        Once the server has told its times, by those: pieces may wait together before they are seen
        here. Until then every piece counts as one token.
        """
        num = self.num_tokens or self._num_chunks
        spent_s = self._spent_s()
        return (num - 1) / spent_s if num > 1 and spent_s > 0 else None

    def _spent_s(self) -> float:
        """From the first piece to the last."""
        if {"first_token_ms", "total_ms"} <= self._timing.keys():
            return (self._timing["total_ms"] - self._timing["first_token_ms"]) / 1000
        return 0.0 if self.first_s is None or self.last_s is None else self.last_s - self.first_s

    def message(self) -> dict[str, Any]:
        """As the conversation goes on with it."""
        made: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.calls:
            made["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for _, call in sorted(self.calls.items())
            ]
        return made

    def facts(self) -> str:
        """How much and how fast, in words."""
        told = []
        if self.num_tokens:
            told.append(f"{amounts.count(self.num_tokens)} tokens")
        if self.tokens_per_s is not None:
            told.append(f"{amounts.rate(self.tokens_per_s)} tokens/s")
        if self.first_after_s is not None:
            told.append(f"first after {amounts.span(self.first_after_s)}")
        if self.finish_reason == "length":
            told.append("cut at the limit")
        return " · ".join(told)

    def _repr_html_(self) -> str:
        calls = [said(f"{call.name}({call.pretty})") for _, call in sorted(self.calls.items())]
        return sheet(said(self.text), *calls, note(self.facts()))

    def __repr__(self) -> str:
        names = ", ".join(call.name for _, call in sorted(self.calls.items()))
        parts = [f"{short(self.text)!r}", f"calls {names}" if names else "", self.facts()]
        return f"<{one_line(plain('  '.join(part for part in parts if part)))}>"
