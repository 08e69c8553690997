"""The header of a GGUF file, checked against its file.

Format: ggml's `docs/gguf.md`: magic, version, counts, key-value pairs, tensor entries, then,
aligned, the data. Tensors must follow each other in the order of their entries, padded to the
alignment, and fill the file: what a loader would read past the end of, or read twice, is refused
here. Of long arrays (a vocabulary) only what is needed is kept.
"""

from __future__ import annotations

import math
import os
import struct
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from llmos.errors import ModelRejected
from llmos.weights.ggml import BLOCKS
from llmos.weights.limits import (
    MAX_GGUF_ARRAY,
    MAX_GGUF_HEADER_BYTES,
    MAX_GGUF_KEYS,
    MAX_GGUF_STRING_BYTES,
    MAX_GGUF_TENSORS,
)

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 16
MAX_KEY_BYTES = 256
MAX_TENSOR_NAME_BYTES = 63
MAX_GGUF_DIMENSIONS = 4
KEPT_ARRAY = 4096
"""Longest array of numbers whose values are kept: one of each layer."""

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_UINT32, _BOOL, _STRING, _ARRAY = 4, 7, 8, 9


class Array(msgspec.Struct, frozen=True):
    """An array: the number of its element type, its length; `values` of short ones of numbers."""

    kind: int
    length: int
    values: list[Any] | None = None


class GGUFTensor(msgspec.Struct, frozen=True):
    """One tensor's entry. `shape` is ggml's: the row's length first. `begin` counts from the data's
    start."""

    name: str
    type: str
    shape: tuple[int, ...]
    begin: int
    size_bytes: int

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


class GGUFHeader(msgspec.Struct, frozen=True):
    """All that stands before the data. `values` by key; `kinds` are their types' numbers."""

    values: dict[str, Any]
    kinds: dict[str, int]
    tensors: list[GGUFTensor]
    size_bytes: int


def read_header(path: Path) -> GGUFHeader:
    """Raises ModelRejected naming the file and what is wrong with it."""
    try:
        with path.open("rb") as file:
            return _Reader(path.name, file, os.fstat(file.fileno()).st_size).read()
    except OSError as error:
        raise ModelRejected(f"{path.name}: cannot be read: {error.strerror}") from None


class _Reader:
    """Reads forward only; every length is bounded before it is believed."""

    def __init__(self, name: str, file: BufferedReader, file_bytes: int) -> None:
        self._name = name
        self._file = file
        self._file_bytes = file_bytes
        self._at = 0

    def read(self) -> GGUFHeader:
        self._check_magic()
        num_tensors = self._count("tensors", MAX_GGUF_TENSORS)
        num_keys = self._count("keys", MAX_GGUF_KEYS)
        values: dict[str, Any] = {}
        kinds: dict[str, int] = {}
        for _ in range(num_keys):
            key = self._text(f"the key after {next(reversed(values), 'none')!r}", MAX_KEY_BYTES)
            if key in values or not key.isprintable():
                self._refuse(f"key {key[:80]!r} is there twice, or is none")
            kinds[key] = self._number("<I")
            values[key] = self._value(key, kinds[key])
        alignment = self._alignment(values, kinds)
        tensors = self._tensors(num_tensors, alignment)
        self._check_data(tensors, alignment)
        return GGUFHeader(values, kinds, tensors, self._at)

    def _refuse(self, text: str) -> NoReturn:
        raise ModelRejected(f"{self._name}: {text}")

    def _check_magic(self) -> None:
        if self._file_bytes < 24:
            self._refuse(f"{self._file_bytes} bytes, too short for GGUF")
        if self._bytes(4) != MAGIC:
            self._refuse("is no GGUF file")
        version = self._number("<I")
        if version not in VERSIONS:
            kind = "big-endian files are" if version & 0xFFFF == 0 else f"version {version} is"
            self._refuse(f"GGUF: {kind} not supported; versions 2 and 3 are")

    def _bytes(self, size: int) -> bytes:
        self._at += size
        if self._at > MAX_GGUF_HEADER_BYTES:
            self._refuse(f"a header of more than {MAX_GGUF_HEADER_BYTES} bytes")
        data = self._file.read(size) if self._at <= self._file_bytes else b""
        if len(data) < size:
            self._refuse(f"the header ends at byte {self._file_bytes} (truncated?)")
        return data

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _count(self, what: str, most: int) -> int:
        count: int = self._number("<Q")
        if count > most:
            self._refuse(f"{count} {what}, over the limit of {most}")
        return count

    def _text(self, what: str, most: int) -> str:
        length = self._count(f"bytes in {what}", most)
        try:
            return self._bytes(length).decode()
        except UnicodeDecodeError:
            self._refuse(f"{what} is not UTF-8")

    def _value(self, key: str, kind: int) -> Any:
        if kind == _STRING:
            # a token may be half a character, but no name, licence or template is
            return self._text(f"{key}", MAX_GGUF_STRING_BYTES)
        if kind == _ARRAY:
            return self._array(key)
        if kind == _BOOL:
            return self._flag(key)
        if kind not in _SCALARS:
            self._refuse(f"{key}: unknown type {kind}")
        return self._number(_SCALARS[kind])

    def _flag(self, key: str) -> bool:
        value = self._number("<B")
        if value > 1:
            self._refuse(f"{key}: {value} is neither true nor false")
        return bool(value)

    def _array(self, key: str) -> Array:
        kind: int = self._number("<I")
        if kind not in _SCALARS and kind != _STRING:
            self._refuse(f"{key}: an array of type {kind}")
        length = self._count(f"elements in {key}", MAX_GGUF_ARRAY)
        if kind == _STRING:
            for _ in range(length):
                self._bytes(self._count(f"bytes in an element of {key}", MAX_GGUF_STRING_BYTES))
            return Array(kind, length)
        form = _SCALARS[kind]
        data = self._bytes(length * struct.calcsize(form))
        if length > KEPT_ARRAY:
            return Array(kind, length)
        return Array(kind, length, list(struct.unpack(f"<{length}{form[1]}", data)))

    def _alignment(self, values: dict[str, Any], kinds: dict[str, int]) -> int:
        key = "general.alignment"
        value = values.get(key, DEFAULT_ALIGNMENT)
        if kinds.get(key, _UINT32) != _UINT32:
            self._refuse(f"{key}: is no 32-bit number")
        if not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
            self._refuse(f"{key}: {value} is not a power of two up to {MAX_ALIGNMENT}")
        return int(value)

    def _tensors(self, num_tensors: int, alignment: int) -> list[GGUFTensor]:
        tensors: list[GGUFTensor] = []
        names: set[str] = set()
        expected = 0
        for _ in range(num_tensors):
            tensor = self._tensor()
            if tensor.name in names:
                self._refuse(f"tensor {tensor.name!r} is there twice")
            if tensor.begin != expected:
                self._refuse(
                    f"tensor {tensor.name!r} begins at byte {tensor.begin} of the data, "
                    f"not at {expected}: overlap or hole"
                )
            names.add(tensor.name)
            tensors.append(tensor)
            expected += _padded(tensor.size_bytes, alignment)
        return tensors

    def _tensor(self) -> GGUFTensor:
        name = self._text("a tensor's name", MAX_TENSOR_NAME_BYTES)
        where = f"tensor {name!r}"
        if not name or not name.isprintable():
            self._refuse(f"{where}: bad name")
        num_dimensions = self._number("<I")
        if not 0 < num_dimensions <= MAX_GGUF_DIMENSIONS:
            self._refuse(f"{where}: {num_dimensions} dimensions")
        shape = tuple(self._number("<Q") for _ in range(num_dimensions))
        if not all(shape) or math.prod(shape) >= 1 << 63:
            self._refuse(f"{where}: bad shape {list(shape)}")
        kind = self._number("<I")
        if kind not in BLOCKS:
            self._refuse(f"{where}: unknown type {kind}")
        type_name, num_in_block, block_bytes = BLOCKS[kind]
        if shape[0] % num_in_block:
            self._refuse(f"{where}: rows of {shape[0]} do not divide into {type_name} blocks")
        size_bytes = math.prod(shape) // num_in_block * block_bytes
        return GGUFTensor(name, type_name, shape, self._number("<Q"), size_bytes)

    def _check_data(self, tensors: list[GGUFTensor], alignment: int) -> None:
        if not tensors:
            self._refuse("holds no tensors")
        last = tensors[-1]
        begin = _padded(self._at, alignment)
        end = begin + last.begin + last.size_bytes
        if end > self._file_bytes:
            self._refuse(
                f"tensor {last.name!r} ends at byte {end} of {self._file_bytes} (truncated file?)"
            )
        if self._file_bytes > _padded(end, alignment):
            self._refuse(f"{self._file_bytes - end} bytes follow the last tensor")


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
