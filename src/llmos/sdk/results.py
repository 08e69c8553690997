"""What inference returns to callers; everything else is abi's own structs."""

from __future__ import annotations

from typing import Any

import msgspec

from llmos.abi.inference import Usage


class ToolDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of the answer's call number `index` of a tool: its `id` and `name` come first, once;
    `arguments` are pieces of JSON."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of a streamed answer. `finish_reason`, `usage` and `llmos` come with the last ones.

    `token_ids` are there with `return_token_ids=True`. `llmos` is how the request ran (request id,
    deterministic or not, class, timing). `tool_calls` are there when tools were offered.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    index: int = 0
    token_ids: list[int] = []
    llmos: dict[str, Any] | None = None
    tool_calls: list[ToolDelta] = []


class Choice(msgspec.Struct, frozen=True):
    """One answer of a request."""

    index: int
    text: str
    finish_reason: str | None
    token_ids: list[int] = []


class Completion(msgspec.Struct, frozen=True):
    """A whole answer. `created_s` is the server's time (UTC, seconds).

    `llmos` is how it ran, as in `Chunk`; a list by choice where several prompts were given.
    """

    id: str
    model: str
    created_s: int
    choices: list[Choice]
    usage: Usage
    llmos: Any = None

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason

    def _repr_html_(self) -> str:
        from llmos.sdk.draw.sheet import heading, note, said, sheet

        is_one = len(self.choices) == 1
        parts = [
            ("" if is_one else heading(f"choice {choice.index}")) + said(choice.text)
            for choice in self.choices
        ]
        return sheet(*parts, note(self._facts()))

    def __repr__(self) -> str:
        from llmos.sdk.draw.cards import short
        from llmos.sdk.draw.columns import one_line
        from llmos.sdk.draw.words import plain

        texts = "  ".join(repr(short(choice.text)) for choice in self.choices)
        return f"<{one_line(plain(f'{texts}  {self._facts()}'))}>"

    def _facts(self) -> str:
        tokens = f"{self.usage.prompt_tokens} + {self.usage.completion_tokens} tokens"
        return f"{self.model} · {tokens} · {self.choices[0].finish_reason or 'open'}"
