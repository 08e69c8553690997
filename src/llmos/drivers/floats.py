"""What a preparer wrote for a driver: arrays of floats, one after another in a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from llmos.errors import EngineFailed

DTYPE = "<f4"
SIZE_BYTES = 4


def read_floats(path: str, shape: Sequence[int], start: int) -> npt.NDArray[np.float32]:
    """The array that begins after `start` floats. Raises EngineFailed."""
    count = int(np.prod(shape))
    try:
        found = np.fromfile(path, dtype=DTYPE, count=count, offset=SIZE_BYTES * start)
    except OSError as error:
        raise EngineFailed(f"what was prepared is gone: {error.strerror}") from error
    if found.size != count:
        raise EngineFailed("what was prepared is not whole")
    return found.reshape(shape)
