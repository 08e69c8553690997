"""The tensors of a model's files, where they lie: private mappings, nothing read until it is used.

A quantized model in the stored form (`llmos.weights.stored`) has its matrices under the names that
they replace.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import torch

from llmos.errors import LoadFailed
from llmos.weights.folder import list_files, read_weights
from llmos.weights.quantization import Quantized
from llmos.weights.quantized import QuantizedFolder
from llmos.weights.safetensors import Tensor, read_header
from llmos.weights.stored import SCALE, Q

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}


class MappedTensors:
    """Raises ModelRejected (what the files hold), LoadFailed (they cannot be read)."""

    def __init__(self, folder: Path, *, quantized: bool) -> None:
        self._folder = folder
        self._stored = QuantizedFolder(folder) if quantized else None
        self._files: dict[str, mmap.mmap] = {}
        self._begins: dict[str, int] = {}
        self._places: dict[str, tuple[str, int, Tensor]] = {}
        self._taken: set[str] = set()
        files, _ = read_weights(folder, list_files(folder))
        for file in files:
            header = read_header(folder / file)
            for tensor in header.tensors:
                self._places[tensor.name] = file, header.data_begin + tensor.begin, tensor
            mapped = self._files[file] = self._map(folder / file)
            self._begins[file] = torch.frombuffer(mapped, dtype=torch.uint8, count=1).data_ptr()

    def _map(self, path: Path) -> mmap.mmap:
        try:
            with path.open("rb") as file:
                # writable as far as this process goes, which is what torch expects of its memory
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise LoadFailed(f"{path.name}: cannot be mapped: {error}") from error

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By name. Halves of a quantized matrix are told as the matrix."""
        found = {name: place[2].shape for name, place in self._places.items()}
        for name, stored in self._stored.stored.items() if self._stored else ():
            del found[name + Q], found[name + SCALE]
            found[name] = stored.shape
        return found

    def holds(self, address: int) -> bool:
        """Whether it is in a mapping of a file."""
        begins = self._begins.items()
        return any(begin <= address < begin + len(self._files[file]) for file, begin in begins)

    def unused(self) -> list[str]:
        """Names of tensors that nobody has asked for."""
        return sorted(self.shapes().keys() - self._taken)

    def find_quantized(self, name: str) -> Quantized | None:
        """Of a matrix that is stored so. Raises ModelRejected for one that is broken."""
        if self._stored is None or name not in self._stored.stored:
            return None
        self._taken.add(name)
        return self._stored.get(name)

    def get(self, name: str) -> torch.Tensor:
        """A view of the file. Raises LoadFailed for a type that is none of weights."""
        file, begin, tensor = self._places[name]
        self._taken.add(name)
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            raise LoadFailed(f"{name}: weights of type {tensor.dtype} are not read")
        if not tensor.num_elements:
            return torch.empty(tensor.shape, dtype=dtype)
        if begin % dtype.itemsize:  # a file may be packed so; torch wants whole elements
            raw = bytearray(self._files[file][begin : begin + tensor.end - tensor.begin])
            return torch.frombuffer(raw, dtype=dtype).view(tensor.shape)
        found = torch.frombuffer(
            self._files[file], dtype=dtype, count=tensor.num_elements, offset=begin
        )
        return found.view(tensor.shape)
