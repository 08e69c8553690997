"""Entry strings: `package.module:attribute`, imported only where they run."""

from __future__ import annotations

import gc
import importlib
from typing import Any

from llmos.errors import PluginError


def load_entry(entry: str) -> Any:
    """The object an entry string names. Raises PluginError saying what is missing."""
    module_name, _, attribute = entry.partition(":")
    was_on = gc.isenabled()
    gc.disable()  # what an engine makes is no garbage: to look for some takes a fifth longer
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{entry} cannot be imported: {error}") from error
    finally:
        if was_on:
            gc.enable()
