"""Syntax trees for tests that read source.

CPython 3.11 counts how deep a conversion to `ast` nodes is in one place of the interpreter, and
collects garbage inside of it. A finalizer or a callback of the collector (Hypothesis has one) that
parses something itself, or lets a thread go on that does, moves the count, and `ast.parse` raises
"SystemError: AST constructor recursion depth mismatch". Nothing else runs Python code there.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collected() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def parse(source: str, filename: str = "<unknown>") -> ast.Module:
    """The tree of a module, whatever a collection of garbage would have run meanwhile."""
    with no_garbage_collected():
        return ast.parse(source, filename)
