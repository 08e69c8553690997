"""`kernel.core` decides and does nothing else: no clock, chance, loop, file, socket or process."""

from __future__ import annotations

import ast

import pytest

from tests.arch.source import Module, imported, modules

ALLOWED = {
    "__future__",
    "bisect",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "math",
    "msgspec",  # the structs of abi are its; it has no effects
    "operator",
    "typing",
}
ALLOWED_PACKAGES = ("llmos.abi", "llmos.errors", "llmos.kernel.core")
IMPURE_BUILTINS = {"open", "input", "print", "exec", "eval", "__import__"}
IMPURE_NAMES = {("llmos.abi.ids", "new_id")}

CORE = [m for m in modules() if m.is_in("llmos.kernel.core")]


def test_there_is_a_core() -> None:
    assert CORE


@pytest.mark.parametrize("module", CORE, ids=lambda m: m.name)
def test_imports_nothing_with_effects(module: Module) -> None:
    wrong = [
        f"line {line}: {name}"
        for name, line in imported(module.tree)
        if name not in ALLOWED and not name.startswith(ALLOWED_PACKAGES)
    ]
    assert not wrong


@pytest.mark.parametrize("module", CORE, ids=lambda m: m.name)
def test_calls_nothing_with_effects(module: Module) -> None:
    wrong = [
        f"line {node.lineno}: {node.id}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name) and node.id in IMPURE_BUILTINS
    ]
    wrong += [
        f"line {node.lineno}: {alias.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (node.module, alias.name) in IMPURE_NAMES
    ]
    wrong += [
        f"line {node.lineno}: async"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await)
    ]
    assert not wrong
