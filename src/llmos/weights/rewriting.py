"""One file of weights to the same file with its matrices quantized, some rows at a time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmos.errors import ModelRejected
from llmos.weights.quantizable import Target
from llmos.weights.quantization import q_shape, quantize, scale_shape
from llmos.weights.safetensors import Header, Tensor, read_header
from llmos.weights.stored import SCALE, SHAPES, TIED, Q, shapes_text

Progress = Callable[[int], None]
"""Told the bytes of the source done since its last call; what it raises ends the work."""

_BLOCK_BYTES = 8 << 20
_ALIGN_BYTES = 64
_NUMPY: dict[str, Any] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


_Sized = tuple[str, str, tuple[int, ...], int]


class Entry(NamedTuple):
    """A tensor's place in a file that is written: `begin` and `end` are offsets into its data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def rewrite(source: Path, path: Path, targets: dict[str, Target], progress: Progress) -> list[str]:
    """The names of all tensors written. `targets` are by the names of their sources.

    Raises ModelRejected for the source, OSError for what is written.
    """
    header = read_header(source)
    entries = _layout(header, targets)
    shapes = {
        targets[t.name].name: targets[t.name].shape for t in header.tensors if t.name in targets
    }
    metadata = {name: text for name, text in header.metadata.items() if name not in (SHAPES, TIED)}
    if shapes:
        metadata[SHAPES] = shapes_text(shapes)
    if any(t.name in targets and not targets[t.name].replaces for t in header.tensors):
        metadata[TIED] = "true"
    head = encode_header(entries, metadata)
    with source.open("rb") as reader, path.open("w+b") as writer:
        writer.write(head)
        rewriting = _Rewriting(reader, header, writer, len(head), entries, progress)
        for tensor in header.tensors:
            target = targets.get(tensor.name)
            if target is None or not target.replaces:
                rewriting.copy(tensor)
            if target is not None:
                rewriting.convert(target)
        writer.flush()
        os.fsync(writer.fileno())
    return list(entries)


def _layout(header: Header, targets: dict[str, Target]) -> dict[str, Entry]:
    """Every `q` first, then scales, then the rest from wide to narrow: so all lie aligned."""
    q: list[_Sized] = []
    scales: list[_Sized] = []
    plain: list[_Sized] = []
    for tensor in header.tensors:
        target = targets.get(tensor.name)
        if target is not None:
            dtype, shape = "I8" if target.bits == 8 else "U8", q_shape(target.shape, target.bits)
            q.append((target.name + Q, dtype, shape, math.prod(shape)))
            of_scale = scale_shape(target.shape, target.bits)
            scales.append((target.name + SCALE, "F32", of_scale, 4 * math.prod(of_scale)))
        if target is None or not target.replaces:
            size_bytes = tensor.end - tensor.begin
            plain.append((tensor.name, tensor.dtype, tensor.shape, size_bytes))
    plain.sort(key=lambda entry: -(entry[3] // max(1, math.prod(entry[2]))))
    entries: dict[str, Entry] = {}
    at = 0
    for name, kind, sides, size_bytes in [*q, *scales, *plain]:
        entries[name] = Entry(kind, sides, at, at + size_bytes)
        at += size_bytes
    return entries


def encode_header(entries: dict[str, Entry], metadata: dict[str, str]) -> bytes:
    """All that comes before the data, which then begins aligned."""
    said: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    for name, entry in entries.items():
        offsets = [entry.begin, entry.end]
        said[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
    text = json.dumps(said, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGN_BYTES)
    return len(text).to_bytes(8, "little") + text


class _Rewriting(NamedTuple):
    reader: BufferedReader
    header: Header
    writer: BufferedRandom
    data_begin: int
    entries: dict[str, Entry]
    progress: Progress

    def copy(self, tensor: Tensor) -> None:
        size_bytes = tensor.end - tensor.begin
        self.writer.seek(self.data_begin + self.entries[tensor.name].begin)
        for done in range(0, size_bytes, _BLOCK_BYTES):
            data = self._read(tensor, done, min(_BLOCK_BYTES, size_bytes - done))
            self.writer.write(data)
            self.progress(len(data))

    def convert(self, target: Target) -> None:
        q_at, scale_at = (
            self.data_begin + self.entries[target.name + part].begin for part in (Q, SCALE)
        )
        for block in self._rows(target):
            try:
                done = quantize(block, target.bits)
            except ModelRejected as error:
                raise _rejected(target.source, error.message) from None
            for at, array in ((q_at, done.q), (scale_at, done.scale)):
                self.writer.seek(at)
                self.writer.write(array.tobytes())
            q_at, scale_at = q_at + done.q.nbytes, scale_at + done.scale.nbytes
            self.progress(block.nbytes if target.replaces else 0)

    def _rows(self, target: Target) -> Iterator[NDArray[Any]]:
        """The matrix [N, K] some rows after others; one that lies turned round comes at once."""
        tensor = target.source
        dtype, (height, width) = np.dtype(_NUMPY[tensor.dtype]), tensor.shape
        row_bytes = width * dtype.itemsize
        step = height if target.is_transposed else max(1, _BLOCK_BYTES // row_bytes)
        for row in range(0, height, step):
            count = min(step, height - row)
            data = self._read(tensor, row * row_bytes, count * row_bytes)
            block = np.frombuffer(data, dtype).reshape(count, width)
            yield block.T if target.is_transposed else block

    def _read(self, tensor: Tensor, begin: int, size_bytes: int) -> bytes:
        try:
            self.reader.seek(self.header.data_begin + tensor.begin + begin)
            data = self.reader.read(size_bytes)
        except OSError as error:
            raise _rejected(tensor, f"cannot be read: {error.strerror}") from None
        if len(data) != size_bytes:
            raise _rejected(tensor, "is cut short")
        return data


def _rejected(tensor: Tensor, what: str) -> ModelRejected:
    return ModelRejected(f"tensor {tensor.name[:200]!r} {what}")
