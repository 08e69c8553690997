"""The stored form of a quantized model, as far as configuration and headers say it.

A folder like the original's. `config.json` has

    "quantization_config": {"quant_method": "llmos", "bits": 8 | 4, "group_size": null | 64,
                            "version": 1}

and for a quantized tensor NAME the safetensors hold `NAME.q` and `NAME.scale` in its place (for a
tied head `lm_head.weight.q` and `.scale`, beside the embedding). The metadata of each file has
`llmos.shapes`, a JSON object of NAME to [N, K], since `q` is wider than the matrix; `llmos.tied` is
`true` in the one with a tied head.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from llmos.errors import ModelRejected
from llmos.weights.jsonfile import Fields, parse_object
from llmos.weights.quantizable import HEAD_BITS, is_head, is_projection
from llmos.weights.quantlayout import GROUP, q_shape, scale_shape
from llmos.weights.safetensors import Header, Tensor

METHOD = "llmos"
VERSION = 1
SHAPES = "llmos.shapes"
TIED = "llmos.tied"
Q, SCALE = ".q", ".scale"
_Q_DTYPES = {8: "I8", 4: "U8"}


class Stored(msgspec.Struct, frozen=True):
    """Where a quantized matrix lies: both parts in one file, whose data begin at a byte.
    `is_tied`: it is a head whose numbers are in an embedding too."""

    name: str
    bits: int
    shape: tuple[int, int]
    file: str
    data_begin: int
    q: Tensor
    scale: Tensor
    is_tied: bool = False


def section(bits: int) -> dict[str, Any]:
    """The `quantization_config` of a model of so many bits."""
    group_size = GROUP if bits == 4 else None
    return {"quant_method": METHOD, "bits": bits, "group_size": group_size, "version": VERSION}


def read_bits(config: Fields) -> int | None:
    """Bits of a model in our stored form, None where it is in none or another. Raises
    ModelRejected for one of ours that this release does not read."""
    found = config.find_section("quantization_config")
    if found is None or found.find_word("quant_method") != METHOD:
        return None
    bits = found.get_count("bits", high=8)
    if bits not in _Q_DTYPES or found.values != section(bits):
        raise ModelRejected(
            f"{found.file}: bits, group_size or version is not one that this release reads"
        )
    return bits


def corrupt(name: str, what: str) -> ModelRejected:
    """The error of a quantized tensor that is not as the format says."""
    return ModelRejected(f"corrupt quantized file: tensor {name[:200]!r} {what}")


def check_headers(headers: dict[str, Header], bits: int) -> dict[str, Stored]:
    """Every quantized matrix of a model by its name, from headers alone. Raises ModelRejected.

    `headers` are those of all its files, by their names.
    """
    found: dict[str, Stored] = {}
    plain: set[str] = set()
    for file, header in headers.items():
        shapes = _shapes(file, header.metadata)
        parts = {tensor.name: tensor for tensor in header.tensors}
        for name, shape in shapes.items():
            q, scale = parts.pop(name + Q, None), parts.pop(name + SCALE, None)
            if q is None or scale is None:
                raise corrupt(name, f"has no {'q' if q is None else 'scale'} beside its other half")
            if name in found:
                raise corrupt(name, "is in two files")
            is_tied = is_head(name) and header.metadata.get(TIED) == "true"
            stored = Stored(name, bits, shape, file, header.data_begin, q, scale, is_tied)
            found[name] = _check(stored, bits)
        plain |= parts.keys()
    _check_whole(found, plain)
    return found


def _shapes(file: str, metadata: dict[str, str]) -> dict[str, tuple[int, int]]:
    if SHAPES not in metadata:
        return {}
    shapes = {}
    for name, shape in parse_object(f"{file}: {SHAPES}", metadata[SHAPES].encode()).items():
        if (
            not isinstance(shape, list)
            or len(shape) != 2
            or not all(type(n) is int and 0 < n < 1 << 31 for n in shape)
        ):
            raise corrupt(name, f"is said to be of shape {str(shape)[:80]}")
        shapes[name] = (shape[0], shape[1])
    return shapes


def _check(stored: Stored, bits: int) -> Stored:
    """With the bits it has: a head has 8 in any model."""
    name = stored.name
    if not is_projection(name) and not is_head(name):
        raise corrupt(name, "is none that is quantized")
    bits = HEAD_BITS if is_head(name) else bits
    wanted = [
        (stored.q, _Q_DTYPES[bits], q_shape(stored.shape, bits)),
        (stored.scale, "F32", scale_shape(stored.shape, bits)),
    ]
    for tensor, dtype, shape in wanted:
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            raise corrupt(
                tensor.name,
                f"is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)}",
            )
    return msgspec.structs.replace(stored, bits=bits)


def _check_whole(found: dict[str, Stored], plain: set[str]) -> None:
    for name in sorted(plain):
        whole = name.removesuffix(Q).removesuffix(SCALE)
        if whole != name and (is_projection(whole) or is_head(whole)):
            raise corrupt(name, "is half of a matrix that the file does not describe")
        if is_projection(name) or (is_head(name) and found):
            raise corrupt(name, "is not quantized")
    heads = [name for name in found if is_head(name)]
    if len(heads) != 1 or len(found) == 1:
        raise ModelRejected(
            f"corrupt quantized file: {len(heads)} heads and {len(found) - len(heads)} matrices "
            "of layers are quantized"
        )


def shapes_text(shapes: dict[str, tuple[int, int]]) -> str:
    """The value of `llmos.shapes` of a file."""
    return json.dumps({name: list(shape) for name, shape in shapes.items()})
