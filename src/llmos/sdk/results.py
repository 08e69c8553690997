"""What inference returns to callers; everything else is abi's own structs."""

from __future__ import annotations

import msgspec

from llmos.abi.inference import Usage


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of a streamed answer. `finish_reason` and `usage` come with the last ones."""

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    index: int = 0


class Choice(msgspec.Struct, frozen=True):
    """One answer of a request."""

    index: int
    text: str
    finish_reason: str | None


class Completion(msgspec.Struct, frozen=True):
    """A whole answer. `created_s` is the server's time (UTC, seconds)."""

    id: str
    model: str
    created_s: int
    choices: list[Choice]
    usage: Usage

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason
