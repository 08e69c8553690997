"""Reading a quantized model in the stored form. Nothing in its files is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmos.errors import ModelRejected
from llmos.weights.folder import list_files, read_weights
from llmos.weights.jsonfile import Fields, read_object
from llmos.weights.limits import MAX_CONFIG_BYTES
from llmos.weights.quantization import Quantized, unpack_int4
from llmos.weights.quantlayout import GROUP, padded
from llmos.weights.safetensors import Tensor, read_header
from llmos.weights.stored import METHOD, SCALE, Q, Stored, check_headers, corrupt, read_bits


class QuantizedFolder:
    """A stored model, its headers checked. `stored`: by name; `plain`: tensors as they were."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelRejected, also for a model that is not in this form."""
        config = Fields("config.json", read_object(folder / "config.json", MAX_CONFIG_BYTES))
        bits = read_bits(config)
        if bits is None:
            raise ModelRejected(f"config.json: quantization_config is not one of {METHOD}")
        files, tensors = read_weights(folder, list_files(folder))
        self._folder = folder
        self.bits = bits
        self.stored = check_headers({file: read_header(folder / file) for file in files}, bits)
        parts = {part for name in self.stored for part in (name + Q, name + SCALE)}
        self.plain = [tensor.name for tensor in tensors if tensor.name not in parts]

    def check(self) -> None:
        """All numbers of all matrices. Raises ModelRejected."""
        for name in self.stored:
            self.get(name)

    def get(self, name: str) -> Quantized:
        """A matrix whose every number was checked; views of a private mapping of its file where
        that is aligned. Raises ModelRejected, KeyError."""
        stored = self.stored[name]
        dtype = np.int8 if stored.bits == 8 else np.uint8
        found = Quantized(
            self._array(stored, stored.q, dtype),
            self._array(stored, stored.scale, np.float32),
            stored.bits,
            stored.shape,
        )
        check_numbers(name, found)
        return found

    def _array(self, stored: Stored, tensor: Tensor, dtype: Any) -> NDArray[Any]:
        path, at = self._folder / stored.file, stored.data_begin + tensor.begin
        try:
            if at % np.dtype(dtype).itemsize:
                count = tensor.num_elements
                return np.fromfile(path, dtype, count, offset=at).reshape(tensor.shape)
            return np.memmap(path, dtype, "c", at, tensor.shape)
        except (OSError, ValueError) as error:
            raise ModelRejected(f"{stored.file}: cannot be read: {str(error)[:200]}") from None


def check_numbers(name: str, quantized: Quantized) -> None:
    """Raises ModelRejected for a number that the format does not allow."""
    num_columns = quantized.shape[1]
    if not bool((np.isfinite(quantized.scale) & (quantized.scale > 0)).all()):
        raise corrupt(name, "has a scale that is not a positive number")
    if quantized.bits == 8 and int(quantized.q.min()) < -127:
        raise corrupt(name, "has a weight of -128")
    if padded(num_columns, quantized.bits) == num_columns:
        return
    rest: NDArray[Any] = quantized.q[:, num_columns:]
    if quantized.bits == 4:
        first = num_columns // (2 * GROUP) * GROUP  # byte of the last block, where padding is
        rest = unpack_int4(quantized.q[:, first:])[:, num_columns - 2 * first :]
    if rest.any():
        raise corrupt(name, "has weights beyond its last column")
