"""The safetensors header, checked against its file.

Format: https://huggingface.co/docs/safetensors/index: eight bytes little-endian header length, a
JSON header, then the data. Offsets are relative to the data's start and must cover it exactly,
without overlap or hole.
"""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any

import msgspec

from llmos.errors import ModelRejected
from llmos.weights.dtypes import BITS
from llmos.weights.jsonfile import parse_object
from llmos.weights.limits import MAX_DIMENSIONS, MAX_HEADER_BYTES, MAX_NAME_LENGTH


class Tensor(msgspec.Struct, frozen=True):
    """One tensor's entry. `begin` and `end` are byte offsets into the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


class Header(msgspec.Struct, frozen=True):
    """`tensors` in the order of their data, which begins at byte `data_begin` of the file."""

    tensors: list[Tensor]
    metadata: dict[str, str]
    data_begin: int


def read_tensors(path: Path) -> list[Tensor]:
    """The tensors of a file in the order of their data. Raises ModelRejected."""
    return read_header(path).tensors


def read_header(path: Path) -> Header:
    """All that a file says before its data. Raises ModelRejected."""
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            head = file.read(8)
            if len(head) < 8:
                raise ModelRejected(f"{path.name}: {size_bytes} bytes, too short for safetensors")
            length = int.from_bytes(head, "little")
            if length > MAX_HEADER_BYTES:
                raise ModelRejected(
                    f"{path.name}: header of {length} bytes, over the limit of {MAX_HEADER_BYTES}"
                )
            if 8 + length > size_bytes:
                raise ModelRejected(
                    f"{path.name}: header of {length} bytes in a file of {size_bytes} (truncated?)"
                )
            header = parse_object(f"{path.name}: header", file.read(length))
    except OSError as error:
        raise ModelRejected(f"{path.name}: cannot be read: {error.strerror}") from None
    metadata = header.pop("__metadata__", None)
    _check_metadata(path.name, metadata)
    tensors = [_tensor(path.name, name, entry) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_cover(path.name, tensors, size_bytes - 8 - length)
    return Header(tensors, metadata or {}, 8 + length)


def _check_metadata(file: str, metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelRejected(f"{file}: __metadata__ must map strings to strings")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _tensor(file: str, name: str, entry: Any) -> Tensor:
    where = f"{file}: tensor {name[:200]!r}"
    if len(name) > MAX_NAME_LENGTH or not name.isprintable() or not name:
        raise ModelRejected(f"{where}: bad name")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelRejected(f"{where}: must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ModelRejected(f"{where}: unknown dtype {str(dtype)[:40]!r}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(_is_size, shape)):
        raise ModelRejected(f"{where}: bad shape {str(shape)[:80]}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise ModelRejected(f"{where}: bad data_offsets {str(offsets)[:80]}")
    tensor = Tensor(name, dtype, tuple(shape), offsets[0], offsets[1])
    if (tensor.end - tensor.begin) * 8 != tensor.num_elements * BITS[dtype]:
        raise ModelRejected(
            f"{where}: {dtype} {list(shape)} does not fill bytes {tensor.begin}..{tensor.end}"
        )
    return tensor


def _check_cover(file: str, tensors: list[Tensor], data_bytes: int) -> None:
    if not tensors:
        raise ModelRejected(f"{file}: holds no tensors")
    last = tensors[-1]
    if last.end > data_bytes:
        raise ModelRejected(
            f"{file}: tensor {last.name[:200]!r} ends at byte {last.end} of {data_bytes} "
            "(truncated file?)"
        )
    if tensors[0].begin != 0 or last.end != data_bytes:
        raise ModelRejected(f"{file}: {data_bytes} bytes of data are not all accounted for")
    for left, right in itertools.pairwise(tensors):
        if right.begin != left.end:
            kind = "overlap" if right.begin < left.end else "leave a hole"
            raise ModelRejected(
                f"{file}: tensors {left.name[:200]!r} and {right.name[:200]!r} {kind}"
            )
