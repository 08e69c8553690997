"""Which tensors of a model are quantized: the matrices of its layers, and the head.

Chosen by name and shape. Routers and experts of a mixture are not known here: such a model is
refused. Embeddings that are looked up, norms and biases stay as they are.
"""

# ruff: noqa: SIM905 (a list of names reads better as text)
from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from llmos.errors import ModelRejected
from llmos.weights.dtypes import FLOATS
from llmos.weights.quantlayout import size_bytes
from llmos.weights.safetensors import Tensor

HEAD = "lm_head.weight"
"""What a head that is tied to the embedding is called once it is quantized."""

HEAD_BITS = 8
"""Of the head, whatever the layers have: its errors reach every token's probability."""

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")

_IN_LAYER = re.compile(r"(?:[A-Za-z_]+\.)*(?:layers|h)\.[0-9]+\.(?:[A-Za-z_]+\.)*(\w+)\.weight")
_PROJECTIONS = frozenset(
    """
    q_proj k_proj v_proj o_proj out_proj qkv_proj query_key_value dense c_attn c_proj c_fc
    gate_proj up_proj down_proj gate_up_proj fc1 fc2 dense_h_to_4h dense_4h_to_h
    """.split()
)
_EXPERTS = ("experts", "shared_expert", "block_sparse_moe")
_TRANSPOSED = {"gpt2": frozenset({"c_attn", "c_proj", "c_fc"})}
"""By model type, the matrices that its files hold as [K, N] (Conv1D of Transformers)."""


class Target(msgspec.Struct, frozen=True):
    """A tensor to quantize: stored as `name`, of `shape` [N, K]. `replaces`: the source goes; a
    tied embedding does not, it is looked up as well."""

    name: str
    source: Tensor
    bits: int
    shape: tuple[int, int]
    is_transposed: bool = False
    replaces: bool = True


def is_projection(name: str) -> bool:
    """Whether a tensor of this name is a matrix of a layer."""
    found = _IN_LAYER.fullmatch(name)
    return found is not None and found[1] in _PROJECTIONS


def is_head(name: str) -> bool:
    """Whether a tensor of this name turns the last layer's output to logits."""
    return name.endswith(HEADS) and not _IN_LAYER.fullmatch(name)


def is_transposed(name: str, model_type: str) -> bool:
    """Whether a matrix lies in its file as [K, N]: a loader has it turned round first."""
    found = _IN_LAYER.fullmatch(name)
    return found is not None and found[1] in _TRANSPOSED.get(model_type, ())


def find_targets(tensors: Iterable[Tensor], bits: int, model_type: str) -> list[Target]:
    """Every tensor to quantize, in the order given. Raises ModelRejected naming what is in the
    way."""
    tensors = list(tensors)
    targets = [
        _target(tensor, bits, model_type) for tensor in tensors if is_projection(tensor.name)
    ]
    if not targets:
        raise ModelRejected("no tensor has the name of a layer's matrix: nothing to quantize")
    for tensor in tensors:
        if any(part in tensor.name.split(".") for part in _EXPERTS):
            raise ModelRejected(
                f"{tensor.name[:200]!r}: a mixture of experts is not quantized by this release"
            )
    return [*targets, _find_head(tensors)]


def _target(tensor: Tensor, bits: int, model_type: str) -> Target:
    num_rows, num_columns = _shape(tensor)
    turned = is_transposed(tensor.name, model_type)
    shape = (num_columns, num_rows) if turned else (num_rows, num_columns)
    return Target(tensor.name, tensor, bits, shape, turned)


def _find_head(tensors: list[Tensor]) -> Target:
    for tensor in tensors:
        if is_head(tensor.name):
            return Target(tensor.name, tensor, HEAD_BITS, _shape(tensor))
    for tensor in tensors:
        if tensor.name.endswith(EMBEDDINGS) and not _IN_LAYER.fullmatch(tensor.name):
            return Target(HEAD, tensor, HEAD_BITS, _shape(tensor), replaces=False)
    raise ModelRejected("no tensor has the name of a head or of an embedding")


def _shape(tensor: Tensor) -> tuple[int, int]:
    if len(tensor.shape) != 2 or 0 in tensor.shape:
        raise ModelRejected(
            f"{tensor.name[:200]!r}: a matrix was expected, not {list(tensor.shape)}"
        )
    if tensor.dtype not in FLOATS:
        raise ModelRejected(f"{tensor.name[:200]!r}: {tensor.dtype} is not quantized")
    return tensor.shape[0], tensor.shape[1]


def saved_bytes(targets: Iterable[Target]) -> int:
    """By how much quantizing makes them smaller; less than 0 where it does not."""
    return sum(
        (target.source.end - target.source.begin) * target.replaces
        - size_bytes(target.shape, target.bits)
        for target in targets
    )
