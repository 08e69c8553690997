"""LLMOS: an operating system for language models. `Client` and `AsyncClient` load lazily."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # the clients load httpx: only whoever asks for one pays for it
    if name in {"AsyncClient", "Beside", "Client"}:
        import importlib

        return getattr(importlib.import_module("llmos.sdk"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
