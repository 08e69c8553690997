"""What an OpenVINO model says of itself: inputs, state, constants. Nothing is computed or unpacked.

Source: OpenVINO's IR, version 11: an XML file of operations beside a file of their constants. Files
are untrusted: entities are refused before one is expanded, every constant is held against the file
it lies in, and operations of other opsets than OpenVINO's own, which a library of code would have
to bring, are not taken.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

import msgspec

from llmos.errors import ModelRejected
from llmos.weights.limits import MAX_IR_BYTES, MAX_IR_LAYERS

BITS = {
    "boolean": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "f8e4m3": 8, "f8e5m2": 8,
    "f8e8m0": 8, "f4e2m1": 4, "nf4": 4, "i4": 4, "i8": 8, "i16": 16, "i32": 32, "i64": 64,
    "u1": 1, "u2": 2, "u3": 3, "u4": 4, "u6": 6, "u8": 8, "u16": 16, "u32": 32, "u64": 64,
}  # fmt: skip
"""Bits of an element, by the names of the format."""

_OPSET = re.compile(r"opset[1-9][0-9]?")
_SHAPE = re.compile(r"|[0-9]{1,18}(,[0-9]{1,18}){0,15}")
_NUMBER = re.compile(r"[0-9]{1,18}")
_CHUNK_BYTES = 1 << 20


class IrHeader(msgspec.Struct, frozen=True):
    """`inputs` are names, `num_elements` counts those of constants by the type they are stored in;
    `num_states`: of values that stay from one token to the next, a key or a value each."""

    inputs: list[str]
    num_elements: dict[str, int]
    num_states: int
    weights_bytes: int


class _Reader:
    """Events of one file to what they add up to. Raises ModelRejected."""

    def __init__(self, name: str, weights_bytes: int) -> None:
        self.inputs: list[str] = []
        self.num_elements: Counter[str] = Counter()
        self.num_states = 0
        self._name = name
        self._weights_bytes = weights_bytes
        self._path: list[str] = []
        self._layer = ""
        self._num_layers = 0
        self._version = ""
        self._parser = parser = expat.ParserCreate()
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._refuse_doctype

    def read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    self._parser.Parse(chunk, False)
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            self._refuse(f"not valid XML: {error}")
        except OSError as error:
            self._refuse(f"cannot be read: {error.strerror}")
        if self._version != "11":
            self._refuse("not an OpenVINO model of version 11")

    def _refuse(self, why: str) -> NoReturn:
        raise ModelRejected(f"{self._name}: {why}") from None

    def _refuse_doctype(self, *_: object) -> None:
        self._refuse("has a document type, which no model needs")

    def _begin(self, tag: str, said: dict[str, str]) -> None:
        self._path.append(tag)
        if self._path == ["net"]:
            self._version = said.get("version", "")[:20]
        elif self._path == ["net", "layers", "layer"]:
            self._begin_layer(said)
        elif self._path == ["net", "layers", "layer", "data"] and self._layer == "Const":
            self._add_constant(said)
        elif tag == "layer" or len(self._path) > 64:
            self._refuse("has graphs inside of operations, or is nested too deeply")

    def _end(self, _: str) -> None:
        self._path.pop()

    def _begin_layer(self, said: dict[str, str]) -> None:
        self._num_layers += 1
        if self._num_layers > MAX_IR_LAYERS:
            self._refuse(f"more than {MAX_IR_LAYERS} operations")
        self._layer = said.get("type", "")
        opset = said.get("version", "")
        if not _OPSET.fullmatch(opset):
            self._refuse(f"{self._layer[:80]} is of {opset[:80]!r}, not of OpenVINO's own opsets")
        if self._layer == "Parameter":
            self.inputs.append(said.get("name", "")[:200])
        self.num_states += self._layer == "ReadValue"

    def _add_constant(self, said: dict[str, str]) -> None:
        kind, shape = said.get("element_type", ""), said.get("shape", "").replace(" ", "")
        numbers = said.get("offset", ""), said.get("size", "")
        if kind == "string" or not _SHAPE.fullmatch(shape) or kind not in BITS:
            self._refuse(f"a constant of {kind[:40]!r} and shape {shape[:80]!r}")
        if not all(_NUMBER.fullmatch(number) for number in numbers):
            self._refuse("a constant without its place")
        begin, size = map(int, numbers)
        if begin + size > self._weights_bytes:
            self._refuse(f"a constant ends at byte {begin + size} of {self._weights_bytes}")
        count = math.prod(int(size) for size in shape.split(",")) if shape else 1
        if size != -(-count * BITS[kind] // 8):
            self._refuse(f"a constant of {count} {kind} in {size} bytes")
        self.num_elements[kind] += count


def read_ir(path: Path, weights: Path) -> IrHeader:
    """Of a model's two files. Raises ModelRejected."""
    if path.stat().st_size > MAX_IR_BYTES:
        raise ModelRejected(f"{path.name}: larger than {MAX_IR_BYTES} bytes")
    weights_bytes = weights.stat().st_size
    reader = _Reader(path.name, weights_bytes)
    reader.read(path)
    return IrHeader(reader.inputs, dict(reader.num_elements), reader.num_states, weights_bytes)
