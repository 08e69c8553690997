"""llama.cpp itself, imported where it runs, and what it has to say when something fails."""

from __future__ import annotations

import functools
import logging
from collections import deque
from typing import Any

from llmos.drivers.catalog import say_missing
from llmos.errors import PluginError

_log = logging.getLogger(__name__)
_WARNING, _ERROR = 3, 4
"""ggml's levels. (llama-cpp-python's own table of them is an older one.)"""

_MAX_SAID = 4
_said: deque[str] = deque(maxlen=_MAX_SAID)
_kept: list[Any] = []
"""A callback must live as long as the library."""


@functools.cache
def library() -> Any:
    """The module of C functions, initialised. Raises PluginError naming the install."""
    try:
        from llama_cpp import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        text = say_missing("gguf", "llama-cpp-python")
        raise PluginError(f"{text} ({str(error)[:200]})") from error
    _kept.append(llama_cpp.llama_log_callback(_hear))
    llama_cpp.llama_log_set(_kept[0], None)
    llama_cpp.llama_backend_init()
    return llama_cpp


def _hear(level: int, text: bytes, _: Any) -> None:
    """Its log: errors are kept for the error they belong to."""
    if level == _ERROR:
        _said.append(text.decode(errors="replace").strip())
    if level in (_WARNING, _ERROR):
        _log.info("%s", text.decode(errors="replace").strip())


def last_words() -> str:
    """What it complained of since the last call, bounded."""
    text = "; ".join(_said)
    _said.clear()
    return text[:500] or "llama.cpp does not say why"


def version() -> str:
    """Of the library, with what it was built for: results rest on both."""
    lib = library()
    return f"llama.cpp {lib.llama_version().decode()}; {lib.llama_print_system_info().decode()}"
