"""A loaded decoder over a pool of pages: forwards and draws, in host memory.

Knows rows, pages and tokens, not requests. What a row gets depends on the tokens of its own
sequence up to it, and on nothing else: not on the rows beside it, on how its prompt was cut, nor on
the number of threads.
"""

# ruff: noqa: N803 (tensor names carry their shape)
from __future__ import annotations

import ctypes as c
import dataclasses
from array import array
from collections.abc import Sequence

import torch

from llmos.drivers.native.fused import binding as b
from llmos.drivers.native.fused import spec
from llmos.drivers.native.fused.weights import Weights, padded
from llmos.drivers.native.pages import Arena
from llmos.errors import EngineFailed, LoadFailed

SPIN_US = 200
"""How long a thread waits awake for the next phase of a forward."""


_DRAW_BYTES = 4 + 16
"""Of a logit that a thread draws from: its probability, and a candidate with its copy."""

_ROW_BYTES = 4 + 5 + 12
"""Of a wanted row's logit: itself, what penalties count, and their passes over it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive tokens of one sequence, from `start` on; `table` is its block table (int32).

    `num_wanted` of them, the last ones, are to be predicted from.
    """

    table: array[int]
    start: int
    tokens: Sequence[int]
    num_wanted: int


@dataclasses.dataclass(frozen=True, slots=True)
class Drawing:
    """How one row draws: see `sampling`, whose meanings these are."""

    greedy: bool
    uniform: float = 0.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


class Engine:
    """Raises LoadFailed where there is no room.

    `max_rows` tokens at most in a forward, `max_wanted` of them predicted from.
    """

    def __init__(
        self,
        library: b.Library,
        decoder: spec.Decoder,
        weights: Weights,
        *,
        kv_dtype: str,
        num_pages: int,
        max_rows: int,
        max_wanted: int,
        num_threads: int,
    ) -> None:
        self.vocab_size = decoder.vocab_size
        self.max_rows = max_rows
        self.max_wanted = max_wanted
        self._library = library
        self._weights = weights  # what the structs point to
        item_bytes = 4 if kv_dtype == "float32" else 2
        self._token_bytes = [padded(layer.head_dim) * item_bytes for layer in decoder.layers]
        self._item_bytes = item_bytes
        self._page_bytes = [
            layer.num_kv_heads * 2 * padded(layer.head_dim) * b.PAGE_TOKENS * item_bytes
            for layer in decoder.layers
        ]
        self.page_bytes = sum(self._page_bytes)
        self.num_pages = num_pages
        of_draws = num_threads * _DRAW_BYTES + max_wanted * _ROW_BYTES
        self.scratch_bytes = decoder.vocab_size * of_draws
        try:
            sizes = [(num_pages, of_layer) for of_layer in self._page_bytes]
            self._arena = Arena(sizes, torch.uint8)
            self._logits_NV = torch.empty(max_wanted, decoder.vocab_size)
        except (RuntimeError, MemoryError, OSError, OverflowError) as error:
            raise LoadFailed(f"no room for the KV of {num_pages} pages: {error}") from error
        for layer, pages in zip(weights.layers, self._arena.tensors, strict=True):
            layer.kv = pages.data_ptr()
        weights.model.kv_kind = b.KINDS[kv_dtype]
        weights.model.max_rows = max_rows
        self._tokens = (c.c_int32 * max_rows)()
        self._wanted = (c.c_int32 * max_rows)()
        self._drawn = (c.c_int32 * max_wanted)()
        self._segments = (b.Segment * max_rows)()
        self._draws = (b.Draw * max_wanted)()
        self._handle = c.c_void_p()
        said = library.open(weights.model, num_threads, SPIN_US, self._handle)
        if said:
            raise LoadFailed(said.decode())

    def close(self) -> None:
        """Give back threads and scratch. Idempotent."""
        if self._handle.value:
            self._library.close(self._handle)
            self._handle = c.c_void_p()

    @property
    def kv_bytes(self) -> int:
        """Of all pages, used or not."""
        return self._arena.size_bytes

    def forward(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Store the pieces' KV; logits of the wanted rows in their order, float32 [N, V].

        They are the engine's own memory, good until the next forward. Raises EngineFailed.
        """
        num_rows = num_wanted = 0
        for number, piece in enumerate(pieces):
            count = len(piece.tokens)
            self._tokens[num_rows : num_rows + count] = list(piece.tokens)
            segment = self._segments[number]
            segment.pages = piece.table.buffer_info()[0]
            segment.start, segment.row, segment.num_rows = piece.start, num_rows, count
            num_rows += count
            for row in range(num_rows - piece.num_wanted, num_rows):
                self._wanted[num_wanted] = row
                num_wanted += 1
        step = b.Step(
            tokens=c.addressof(self._tokens),
            segments=self._segments,
            wanted=c.addressof(self._wanted),
            logits=self._logits_NV.data_ptr(),
            num_rows=num_rows,
            num_segments=len(pieces),
            num_wanted=num_wanted,
        )
        self._check(self._library.forward(self._handle, step))
        return self._logits_NV[:num_wanted]

    def draw(self, logits_NV: torch.Tensor, drawings: Sequence[Drawing]) -> list[int | None]:
        """The next token of each row, None where its logits are not finite."""
        for number, drawing in enumerate(drawings):
            self._draws[number] = b.Draw(
                drawing.uniform,
                drawing.temperature,
                drawing.top_p,
                drawing.min_p,
                drawing.top_k,
                drawing.greedy,
            )
        said = self._library.draw(
            self._handle,
            logits_NV.data_ptr(),
            logits_NV.stride(0),
            len(drawings),
            self._draws,
            c.addressof(self._drawn),
        )
        self._check(said)
        return [token if token >= 0 else None for token in self._drawn[: len(drawings)]]

    def _check(self, said: bytes | None) -> None:
        if said:
            raise EngineFailed(said.decode())

    # pages, as bytes

    def read_pages(self, pages: Sequence[int], num_tokens: int) -> list[torch.Tensor]:
        """Copies, uint8 [pages, bytes], layer after layer; zeros beyond so many tokens.

        What the last page holds beyond them may be of whoever had it before.
        """
        index = torch.tensor(pages, dtype=torch.long)
        copies = [layer[index] for layer in self._arena.tensors]
        rest = num_tokens % b.PAGE_TOKENS
        for copy, token_bytes in zip(copies, self._token_bytes if rest else (), strict=False):
            # of each head keys [size, tokens], then values [tokens, size]
            heads = copy[-1].view(-1, 2, b.PAGE_TOKENS * token_bytes)
            heads[:, 0].view(len(heads), -1, b.PAGE_TOKENS, self._item_bytes)[:, :, rest:] = 0
            heads[:, 1].view(len(heads), b.PAGE_TOKENS, token_bytes)[:, rest:] = 0
        return copies

    def empty_pages(self, count: int) -> list[torch.Tensor]:
        """Room for what `read_pages` gives."""
        return [torch.empty(count, size, dtype=torch.uint8) for size in self._page_bytes]

    def write_pages(self, pages: Sequence[int], contents: Sequence[torch.Tensor]) -> None:
        """The inverse of `read_pages`, to any pages."""
        index = torch.tensor(pages, dtype=torch.long)
        for layer, content in zip(self._arena.tensors, contents, strict=True):
            layer[index] = content
