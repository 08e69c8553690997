"""Stored tensors by name: parts of them as matrices and vectors, their shapes checked."""

from __future__ import annotations

import math
from collections.abc import Mapping

from llmos.drivers.native.fused.spec import Matrix, Rows, Unsupported, Vector

Part = tuple[int, int] | Rows
"""From, up to; or the numbers of rows."""


class Stored:
    """The names and shapes of a model's tensors. Files may leave out or add the base's `prefix`."""

    def __init__(self, tensors: Mapping[str, tuple[int, ...]], prefix: str) -> None:
        self._tensors = tensors
        self._prefix = f"{prefix}."

    def has(self, name: str) -> bool:
        """Whether the files hold a tensor that the model calls so."""
        return bool(self._names(name))

    def matrix(
        self,
        name: str,
        num_rows: int | None,
        num_columns: int,
        part: Part | None = None,
        *,
        transposed: bool = False,
    ) -> Matrix:
        """A part of a weight [num_rows, num_columns], of any number of rows if that is None."""
        found, shape = self._find(name)
        rows_first = shape[::-1] if transposed else shape
        total = rows_first[0] if num_rows is None and rows_first else num_rows
        if total is None or rows_first != (total, num_columns):
            raise Unsupported(f"{found} has shape {list(shape)}, not {total} by {num_columns}")
        if part is None or isinstance(part, tuple):
            start, stop = part or (0, total)
            return Matrix(found, start, stop, num_columns, transposed)
        return Matrix(found, 0, total, num_columns, transposed, part)

    def vector(self, name: str, shape: tuple[int, ...], part: Part | None = None) -> Vector:
        """A part of a tensor of that shape, flattened."""
        found, stored = self._find(name)
        if stored != shape:
            raise Unsupported(f"{found} has shape {list(stored)}, not {list(shape)}")
        size = math.prod(shape)
        if part is None or isinstance(part, tuple):
            return Vector(found, *(part or (0, size)))
        return Vector(found, 0, size, part)

    def _find(self, name: str) -> tuple[str, tuple[int, ...]]:
        names = self._names(name)
        if not names:
            raise Unsupported(f"no tensor is called {name}")
        if len(names) > 1:
            raise Unsupported(f"two tensors may be meant: {' and '.join(names)}")
        return names[0], tuple(self._tensors[names[0]])

    def _names(self, name: str) -> list[str]:
        shorter = name.removeprefix(self._prefix)
        candidates = dict.fromkeys((name, shorter, self._prefix + name))
        return [candidate for candidate in candidates if candidate in self._tensors]
