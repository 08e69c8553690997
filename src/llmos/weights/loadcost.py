"""What a model takes in each type its weights can be loaded in, from its headers alone.

A matrix that is quantized on the way in is read from its file, packed into memory of our own, and
the file's pages are dropped, one after the other: beside the packed ones the largest matrix is
there once more, as it is in the file and as float32. One that is stored quantized may be packed
anew in the same way.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from llmos.abi.registry import LoadCost
from llmos.errors import ModelRejected
from llmos.weights.dtypes import FLOATS, ITEM_BYTES
from llmos.weights.facts import ModelFacts
from llmos.weights.footprint import Shape, footprint_bytes, widest
from llmos.weights.jsonfile import Fields
from llmos.weights.processor import LOADABLE, QUANTIZED, loaded_dtype
from llmos.weights.quantizable import find_targets
from llmos.weights.quantlayout import size_bytes
from llmos.weights.safetensors import Tensor
from llmos.weights.seeing import Tower
from llmos.weights.stored import Stored


class Sizes(msgspec.Struct, frozen=True):
    """What costs follow from. `text` is the language model's part of the configuration; `tower` of
    a model that sees."""

    folder: Path
    text: Fields
    tensors: list[Tensor]
    stored: dict[str, Stored]
    tower: Tower | None = None


def with_costs(facts: ModelFacts, sizes: Sizes) -> ModelFacts:
    """With the footprint in the type it loads in by itself, and the costs of all others."""
    computed = loaded_dtype(facts.dtype)
    if facts.is_ours:
        footprint = _stored_bytes(facts, sizes, computed)
        loads = {facts.stored_dtype: LoadCost(footprint, facts.kv_bytes_per_token)}
    elif facts.quantization:
        footprint, loads = _float_bytes(facts, sizes, computed), {}
    else:
        footprint = _float_bytes(facts, sizes, computed)
        loads = _loads(facts, sizes, computed)
    return msgspec.structs.replace(facts, footprint_bytes=footprint, loads=loads)


def _loads(facts: ModelFacts, sizes: Sizes, computed: str) -> dict[str, LoadCost]:
    per_byte = facts.kv_bytes_per_token // ITEM_BYTES[computed]
    loads = {
        dtype: LoadCost(_float_bytes(facts, sizes, dtype), per_byte * ITEM_BYTES[dtype])
        for dtype in LOADABLE
        if dtype not in QUANTIZED
    }
    # quantized matrices are the fused engine's, which does not see
    for dtype, bits in () if sizes.tower else (("int8", 8), ("int4", 4)):
        try:
            footprint = _quantized_bytes(facts, sizes, computed, bits)
        except ModelRejected:  # such a model is not quantized
            continue
        loads[dtype] = LoadCost(footprint, facts.kv_bytes_per_token)
    return loads


def _float_bytes(facts: ModelFacts, sizes: Sizes, dtype: str) -> int:
    loaded_bytes, cast_bytes = _cast(sizes.tensors, dtype)
    return _footprint(facts, sizes, dtype, loaded_bytes, cast_bytes)


def _cast(tensors: list[Tensor], dtype: str) -> tuple[int, int]:
    """Bytes in memory, and of the file's tensors that are there until the last one is cast."""
    loaded_bytes = cast_bytes = 0
    for tensor in tensors:
        in_file = tensor.end - tensor.begin
        cast = tensor.dtype in FLOATS and FLOATS[tensor.dtype] != dtype
        loaded_bytes += tensor.num_elements * ITEM_BYTES[dtype] if cast else in_file
        cast_bytes += in_file if cast else 0
    return loaded_bytes, cast_bytes


def _quantized_bytes(facts: ModelFacts, sizes: Sizes, dtype: str, bits: int) -> int:
    targets = find_targets(sizes.tensors, bits, facts.model_type)
    replaced = {target.source.name for target in targets if target.replaces}
    loaded_bytes, cast_bytes = _cast([t for t in sizes.tensors if t.name not in replaced], dtype)
    loaded_bytes += sum(size_bytes(target.shape, target.bits) for target in targets)
    passing_bytes = max(
        target.source.end - target.source.begin + 4 * target.source.num_elements
        for target in targets
    )
    return _footprint(facts, sizes, dtype, loaded_bytes, cast_bytes + passing_bytes)


def _stored_bytes(facts: ModelFacts, sizes: Sizes, dtype: str) -> int:
    parts = {part.name for one in sizes.stored.values() for part in (one.q, one.scale)}
    loaded_bytes, cast_bytes = _cast([t for t in sizes.tensors if t.name not in parts], dtype)
    matrices = [size_bytes(one.shape, one.bits) for one in sizes.stored.values()]
    return _footprint(facts, sizes, dtype, loaded_bytes + sum(matrices), cast_bytes + max(matrices))


def _footprint(
    facts: ModelFacts, sizes: Sizes, dtype: str, loaded_bytes: int, passing_bytes: int
) -> int:
    """What `llmos.weights.footprint` says; `dtype` is that of the activations."""
    shapes: list[tuple[int, ...]] = [tensor.shape for tensor in sizes.tensors]
    shapes += [one.shape for one in sizes.stored.values()]
    shape = Shape(
        vocab_size=facts.vocab_size,
        hidden_size=facts.hidden_size,
        widest=widest(shapes, facts.vocab_size),
        largest=max(tensor.num_elements for tensor in sizes.tensors),
        num_heads=facts.num_heads,
        head_dim=facts.head_dim,
        item_bytes=ITEM_BYTES[dtype],
        capped=sizes.text.values.get("attn_logit_softcapping") is not None,
    )
    tokenizer_bytes = (sizes.folder / "tokenizer.json").stat().st_size
    return footprint_bytes(
        loaded_bytes,
        passing_bytes,
        tokenizer_bytes,
        shape,
        facts.context_length,
        tower=sizes.tower,
    )
