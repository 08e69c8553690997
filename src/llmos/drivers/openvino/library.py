"""OpenVINO GenAI itself, imported where it runs."""

from __future__ import annotations

import functools
from typing import Any

from llmos.drivers.catalog import say_missing
from llmos.errors import PluginError


@functools.cache
def library() -> tuple[Any, Any]:
    """The modules `openvino` and `openvino_genai`. Raises PluginError naming the install."""
    try:
        import openvino
        import openvino_genai
    except (ImportError, OSError, RuntimeError) as error:
        text = say_missing("openvino", "openvino-genai")
        raise PluginError(f"{text} ({str(error)[:200]})") from error
    return openvino, openvino_genai


def version() -> str:
    """Of the library."""
    return f"OpenVINO GenAI {library()[1].__version__.split('-')[0]}"
