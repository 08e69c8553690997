"""How much memory a replica takes, said before it is loaded: an upper bound, as tight as it can be.

    base        a worker with its engine imported, no model (`DriverSpec.base_bytes`)
  + weights     every tensor in the type it is loaded in
  + copy        the largest tensor once more, where types differ: it is cast one at a time
  + tables      the tokenizer, and the objects of the model
  + scratch     what the largest forward and the largest draw need beside weights and KV
  + KV          slots x tokens of context x bytes of a token

All but base and KV is a version's footprint. Everything here is arithmetic on shapes: what it
leaves out is bounded by constants, measured by `benchmarks.memory.footprint`.
"""

from __future__ import annotations

import msgspec

LIBRARY_BYTES = 16 << 20
"""Pages of libraries that the first full load of work still brings in."""


class Shape(msgspec.Struct, frozen=True):
    """What scratch depends on. `widest`: the widest layer, `largest`: elements of the largest
    tensor; `item_bytes`: of an element of weights, activations and KV."""

    vocab_size: int
    hidden_size: int
    widest: int
    largest: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    item_bytes: int


def scratch_bytes(shape: Shape, num_rows: int) -> int:
    """Beside weights and KV, at most: a forward of a chunk or of all rows, then the draw."""
    return 0
