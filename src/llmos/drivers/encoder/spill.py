"""Arrays of float32 in a file of their own, between preparer and driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.floats import DTYPE, SIZE_BYTES
from llmos.errors import PayloadTooLarge, StorageError


class Spill:
    """Written by the preparer; the kernel deletes it. `path` is empty until something is in it."""

    def __init__(self, path: str) -> None:
        self._wanted = path
        self._file: BinaryIO | None = None
        self._num_floats = 0
        self._is_full = False
        self.path = ""

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def check(self) -> None:
        """Raises PayloadTooLarge when something did not fit: the rest need not be read."""
        if self._is_full:
            most = LIMITS.spill_bytes
            raise PayloadTooLarge(f"the inputs together are over {most} bytes once they are read")

    def add(self, array: Any) -> int:
        """Where it begins, in floats. Raises StorageError, PayloadTooLarge."""
        start = self._num_floats
        self._is_full = self._is_full or SIZE_BYTES * (start + array.size) > LIMITS.spill_bytes
        self.check()
        try:
            if self._file is None:
                self._file = Path(self._wanted).open("xb")  # noqa: SIM115 - closed by __exit__
                self.path = self._wanted
            self._file.write(np.ascontiguousarray(array, dtype=DTYPE).tobytes())
        except OSError as error:
            raise StorageError(f"what was prepared cannot be written: {error.strerror}") from error
        self._num_floats += array.size
        return start
