"""What learning is done with: there or not, and imported at once."""

from __future__ import annotations

import gc
import importlib
import os

from llmos.errors import PluginError

LEARNING = ("llmos.programs.train.trainer", "llmos.programs.train.objectives.choose")
"""Ours that import all of it."""


def require_extra() -> None:
    """Raises PluginError."""
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise PluginError("training needs an extra: pip install 'llmos[train]'") from None


def import_all() -> None:
    """Takes seconds, the first time. What imports made never becomes garbage: no collection walks
    it, now or later."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        for name in LEARNING:
            importlib.import_module(name)
        gc.freeze()
    finally:
        if was_on:
            gc.enable()


def be_quiet() -> None:
    """Before torch is imported: its C++ has no word to say, once a process, about parameters that
    were looked for and are all in use."""
    os.environ.update(TORCH_CPP_LOG_LEVEL="ERROR")
