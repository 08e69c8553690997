"""What the preparer hands to the driver. Private to the two: nobody else reads it."""

from __future__ import annotations

from typing import Any

import msgspec

from llmos.errors import ErrorInfo


class Row(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One sequence of the batch: a text, or a window of one.

    `tokens`: int32; `types`: a byte each, empty for all 0; `special`: a byte each, 1 for what the
    tokenizer added; `offsets`: int32 pairs, characters of the text, where a kind needs them.
    `start` and `shape`: of float32 in the spilled file, for what is no text. `cost` is what it
    counts for, in tokens.
    """

    cost: int
    tokens: bytes = b""
    types: bytes = b""
    special: bytes = b""
    offsets: bytes = b""
    start: int = 0
    shape: list[int] = []

    @property
    def length(self) -> int:
        """Along which rows of a batch are padded."""
        return len(self.tokens) // 4 if self.tokens else self.shape[-1]


class Item(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """`about` is what its kind needs to read the result; an item with `error` has no rows."""

    index: int
    rows: list[Row] = []
    about: Any = None
    note: str = ""
    error: ErrorInfo | None = None


class Payload(msgspec.Struct, frozen=True, array_like=True):
    """`params` were checked already: they are the kind's, with defaults filled in."""

    items: list[Item]
    params: dict[str, Any]


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Payload).decode
