"""Whatever an engine raises, as one of ours. The one place where that happens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from llmos.errors import EngineFailed, LLMOSError


@contextlib.contextmanager
def mapped() -> Iterator[None]:
    """Raises EngineFailed instead, or the LLMOSError that it was already."""
    try:
        yield
    except LLMOSError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines()
        what = text[0][:300] if text else type(error).__name__
        out = isinstance(error, torch.OutOfMemoryError | MemoryError) or "memory" in what
        raise EngineFailed(f"out of memory: {what}" if out else what) from error
