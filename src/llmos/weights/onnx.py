"""What an ONNX file says of itself: inputs, outputs, tensors. Nothing is computed or unpacked.

Source: onnx.proto3 (ModelProto, GraphProto, NodeProto, TensorProto) in Protocol Buffers' encoding.
Files are untrusted: every length is held against what is left. Weights in files beside it are
refused: an engine would follow any path that is written there.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import msgspec

from llmos.errors import ModelRejected

MAX_DEPTH = 16
MAX_NAMES = 4096
MAX_FIELDS = 5_000_000

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH = 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE = 1, 5, 11, 12, 15
_ATTRIBUTE = 5
_TENSOR, _SUBGRAPH, _TENSORS, _SUBGRAPHS = 5, 6, 10, 11
_DIMS, _TENSOR_NAME, _EXTERNAL, _LOCATION = 1, 8, 13, 14
_NAME = 1


class OnnxHeader(msgspec.Struct, frozen=True):
    """Names of a graph's inputs (without weights) and outputs; elements of its tensors."""

    inputs: list[str]
    outputs: list[str]
    num_parameters: int
    size_bytes: int


class _Broken(Exception):
    """It is no such file; the text says where."""


Field = tuple[int, int, int, int]
"""Number, kind, and where its value begins and ends; of a number, the value and 0."""


class _Reader:
    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        self._num_fields = 0

    def fields(self, begin: int, end: int) -> Iterator[Field]:
        at = begin
        while at < end:
            self._num_fields += 1
            if self._num_fields > MAX_FIELDS:
                raise _Broken("has too many fields")
            tag, at = self._varint(at, end)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                value, at = self._varint(at, end)
                yield number, kind, value, 0
                continue
            if kind == _BYTES:
                size, at = self._varint(at, end)
            elif kind in (_FIXED32, _FIXED64):
                size = 4 if kind == _FIXED32 else 8
            else:
                raise _Broken(f"has a field of kind {kind}")
            if size > end - at:
                raise _Broken("is cut short")
            yield number, kind, at, at + size
            at += size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise _Broken("is cut short")
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise _Broken("has a number that is too long")

    def text(self, begin: int, end: int) -> str:
        return bytes(self._data[begin : min(end, begin + 512)]).decode("utf-8", "replace")

    def packed(self, begin: int, end: int) -> Iterator[int]:
        at = begin
        while at < end:
            value, at = self._varint(at, end)
            yield value


class _Graph:
    """Collects over a graph and those inside of it."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.weights: set[str] = set()
        self.num_parameters = 0

    def read(self, begin: int, end: int, depth: int = 0) -> None:
        if depth > MAX_DEPTH:
            raise _Broken("has graphs too deep in each other")
        for number, kind, at, to in self._reader.fields(begin, end):
            if kind != _BYTES:
                continue
            if number == _INITIALIZER:
                self._tensor(at, to)
            elif number == _NODE:
                self._node(at, to, depth)
            elif number == _SPARSE:
                raise _Broken("has sparse weights, which are not supported")
            elif number in (_INPUT, _OUTPUT) and not depth:
                names = self.inputs if number == _INPUT else self.outputs
                names.append(self._name(at, to))
                if len(names) > MAX_NAMES:
                    raise _Broken("has too many inputs or outputs")

    def _node(self, begin: int, end: int, depth: int) -> None:
        for number, kind, at, to in self._reader.fields(begin, end):
            if number == _ATTRIBUTE and kind == _BYTES:
                for inner, of_kind, start, stop in self._reader.fields(at, to):
                    if of_kind != _BYTES:
                        continue
                    if inner in (_TENSOR, _TENSORS):
                        self._tensor(start, stop)
                    elif inner in (_SUBGRAPH, _SUBGRAPHS):
                        self.read(start, stop, depth + 1)

    def _tensor(self, begin: int, end: int) -> None:
        elements = 1
        for number, kind, at, to in self._reader.fields(begin, end):
            if number == _EXTERNAL or (number == _LOCATION and at == 1 and kind == _VARINT):
                raise _Broken("has its weights in another file; export it as one")
            if number == _DIMS:
                for size in [at] if kind == _VARINT else self._reader.packed(at, to):
                    elements = min(elements * size, 1 << 62)
            elif number == _TENSOR_NAME and kind == _BYTES:
                self.weights.add(self._reader.text(at, to))
        self.num_parameters += elements

    def _name(self, begin: int, end: int) -> str:
        for number, kind, at, to in self._reader.fields(begin, end):
            if number == _NAME and kind == _BYTES:
                return self._reader.text(at, to)
        raise _Broken("has an input or output without a name")


def read_header(path: Path) -> OnnxHeader:
    """Raises ModelRejected."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if not size:
                raise _Broken("is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                graph = _read_graph(_Reader(data), size)
    except _Broken as error:
        raise ModelRejected(f"{path.name}: {error}") from None
    except OSError as error:
        raise ModelRejected(f"{path.name}: cannot be read: {error.strerror}") from None
    inputs = [name for name in graph.inputs if name not in graph.weights]
    return OnnxHeader(inputs, graph.outputs, graph.num_parameters, size)


def _read_graph(reader: _Reader, size: int) -> _Graph:
    found: _Graph | None = None
    for number, kind, at, to in reader.fields(0, size):
        if number == _GRAPH and kind == _BYTES:
            if found is not None:
                raise _Broken("has two graphs")
            found = _Graph(reader)
            found.read(at, to)
    if found is None or not found.inputs or not found.outputs:
        raise _Broken("is no ONNX model: it has no graph with inputs and outputs")
    return found
