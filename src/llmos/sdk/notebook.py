"""Where output goes: a notebook's cell that can be changed, a terminal, or a pipe.

A notebook is known by IPython's own kernel, which the caller's program has imported then; we never
do.
"""

from __future__ import annotations

import enum
import importlib
import sys
import time
from typing import Any, TextIO


class Place(enum.Enum):
    """What people look at."""

    NOTEBOOK = "notebook"
    TERMINAL = "terminal"
    PIPE = "pipe"


def place_of(file: TextIO) -> Place:
    """Where what is written to `file` is seen."""
    if is_notebook():
        return Place.NOTEBOOK
    return Place.TERMINAL if file.isatty() else Place.PIPE


def is_notebook() -> bool:
    """Whether there is a front end that shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class Cell:
    """HTML in a notebook's output that is replaced as it grows, at most every `pause_s`."""

    def __init__(self, pause_s: float = 0.1) -> None:
        self._handle: Any = None
        self._pause_s = pause_s
        self._drawn_s = 0.0

    def is_due(self) -> bool:
        """Whether to draw again: drawing is dear, so it is done now and then."""
        return self._handle is None or time.monotonic() - self._drawn_s >= self._pause_s

    def draw(self, html: str, text: str) -> None:
        """Put it where the last one was. `text` stands for it where there is no HTML."""
        display = importlib.import_module("IPython.display").display
        data = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
        self._drawn_s = time.monotonic()
