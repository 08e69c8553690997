"""How much memory a replica takes, said before it is loaded: an upper bound, as tight as it can be.

    base      a worker with its engine imported and no model (`DriverSpec.base_bytes`)
  + weights   every tensor in the type it is loaded in
  + file      tensors that change their type once more as they are in the file: its pages stay
              until the last one is cast; nothing where types are equal: weights are those pages
  + tables    the tokenizer, the model's objects, the engine's kernels for this model
  + scratch   what the largest forward or the largest draw needs beside weights and KV
  + sight     what looking at the largest image needs, of models that see
  + KV        slots x tokens of context x bytes of a token

All but base and KV are a version's footprint. It is arithmetic on shapes; what shapes do not say is
in constants, held against measured peaks by `benchmarks.memory.footprint`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from llmos.weights.seeing import Tower

TABLE_BYTES = 56 << 20
"""Objects and kernels that any loaded model brings; 36 to 46 MB were measured."""

TABLES_PER_TOKENIZER_BYTE = 12
"""Memory of a tokenizer, for a byte of its file; 9 were measured at 152 thousand tokens."""

LIBRARY_BYTES = 16 << 20
"""Pages of libraries, and crumbs of freed memory, that the first full load of work brings in."""

ROWS = 16
"""Rows that a footprint has scratch for; a loaded replica's bound knows its own number."""

CONTEXT_TOKENS = 8192
"""Tokens of context that a footprint has scratch for, where the model's own are more."""

CHUNK_TOKENS = 64
"""Tokens that are read at once."""

DRAW_ELEMENTS = 1 << 19
"""Logits that are drawn from at once, at least one row."""

_HEAP_BYTES = 32 << 20
"""Freed blocks up to this size stay in the C library's heap, where the next one may not fit."""

_DRAW_BYTES = 64
"""Of a logit that is drawn from: it as float32, its probability, sums and orders of them."""

_TURNED, _SPREAD = 12, 3
"""Of a patch in a layer of a vision tower: so many rows of its width, and of its widest product;
both together were two thirds to nine tenths of it at 5120 patches, 640 wide."""

_COUNT_BYTES = 5
"""Of a token of the vocabulary in a row with penalties: how often, and whether, it was there."""


class Shape(msgspec.Struct, frozen=True):
    """What scratch depends on. `widest`: the most columns of a layer's product; `largest`: elements
    of the largest tensor; `item_bytes`: of an element as loaded; `capped`: attention scores are
    bounded by tanh, for which they are all held at once."""

    vocab_size: int
    hidden_size: int
    widest: int
    largest: int
    num_heads: int
    head_dim: int
    item_bytes: int
    capped: bool = False


def widest(shapes: Iterable[Sequence[int]], vocab_size: int) -> int:
    """The most columns or rows of a matrix that is neither embedding nor head."""
    matrices = [shape for shape in shapes if len(shape) > 1 and max(shape) < vocab_size]
    return max((max(shape) for shape in matrices), default=vocab_size)


def scratch_bytes(shape: Shape, num_rows: int, context_length: int) -> int:
    """Beside weights and KV: of the largest forward or the largest draw, whichever is more."""
    num_rows = -(-num_rows // ROWS) * ROWS
    num_tokens = max(CHUNK_TOKENS, num_rows)
    # 16-bit products are made from a copy of the matrix in the order the processor wants
    packed = shape.largest * shape.item_bytes if shape.item_bytes < 4 else 0
    layer = num_tokens * (8 * shape.hidden_size + 4 * shape.widest) * 4
    logits = num_rows * shape.vocab_size * 3 * shape.item_bytes
    forward = packed + layer + _attention_bytes(shape, context_length) + logits
    drawn = max(shape.vocab_size, min(num_rows * shape.vocab_size, DRAW_ELEMENTS))
    draw = drawn * _DRAW_BYTES + logits
    counts = num_rows * shape.vocab_size * _COUNT_BYTES
    return max(forward, draw) + min(packed, _HEAP_BYTES) + counts


def _attention_bytes(shape: Shape, context_length: int) -> int:
    """A chunk against the whole context: keys and values of every query's head, the mask."""
    of_token = 2 * shape.num_heads * shape.head_dim * shape.item_bytes
    of_token += CHUNK_TOKENS * (2 + shape.item_bytes)
    if shape.capped:
        of_token += shape.num_heads * CHUNK_TOKENS * (3 * shape.item_bytes + 8)
    return of_token * context_length


def sight_bytes(tower: Tower | None, num_rows: int, item_bytes: int) -> int:
    """Of looking at the largest image, and of what each row's request has seen and not yet read."""
    if tower is None:
        return 0
    pixels = tower.num_patches * tower.patch_size * (4 + item_bytes)
    # turned queries and keys are float32 whatever the type is
    layer = tower.num_patches * (_TURNED * tower.width + _SPREAD * tower.widest) * 4
    kept = tower.num_patches * tower.width * tower.num_kept * item_bytes
    seen = (num_rows + 2) * (tower.num_tokens + CHUNK_TOKENS) * tower.out_width * item_bytes
    return pixels + layer + kept + seen + _HEAP_BYTES


def footprint_bytes(
    loaded_bytes: int,
    cast_bytes: int,
    tokenizer_bytes: int,
    shape: Shape,
    context_length: int,
    *,
    tower: Tower | None = None,
) -> int:
    """All but base and KV. `cast_bytes`: of the file's tensors that are loaded as another type."""
    tables = TABLE_BYTES + TABLES_PER_TOKENIZER_BYTE * tokenizer_bytes + LIBRARY_BYTES
    scratch = scratch_bytes(shape, ROWS, min(context_length, CONTEXT_TOKENS))
    scratch += sight_bytes(tower, ROWS, shape.item_bytes)
    # scratch and the file's pages are never there at the same time
    return loaded_bytes + tables + max(cast_bytes, scratch)
