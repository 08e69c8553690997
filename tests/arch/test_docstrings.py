"""Public things say what they are, where ruff's rules are switched off or do not look."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.arch.source import Module, modules

LONG_METHOD_LINES = 20


def _classes(module: Module) -> Iterator[ast.ClassDef]:
    yield from (n for n in module.tree.body if isinstance(n, ast.ClassDef) if n.name[0] != "_")


def _has_behaviour(node: ast.ClassDef) -> bool:
    """Messages and enums with fields only are said by their name."""
    return any(isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) for n in node.body)


def test_every_module_has_a_docstring() -> None:
    empty = [m.name for m in modules() if m.tree.body and not ast.get_docstring(m.tree)]
    assert not empty


def test_every_class_with_behaviour_has_a_docstring() -> None:
    bare = [
        f"{m.name}.{node.name}"
        for m in modules()
        for node in _classes(m)
        if _has_behaviour(node) and not ast.get_docstring(node)
    ]
    assert not bare


def _said_by_a_seam() -> set[str]:
    """Names of methods whose Protocol says what they do."""
    return {
        method.name
        for m in modules()
        for node in _classes(m)
        if any(ast.unparse(base).startswith("Protocol") for base in node.bases)
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_long_public_method_has_a_docstring() -> None:
    said = _said_by_a_seam()
    bare = [
        f"{m.name}.{node.name}.{method.name}"
        for m in modules()
        for node in _classes(m)
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        and not method.name.startswith("_")
        and method.name not in said
        and (method.end_lineno or 0) - method.lineno >= LONG_METHOD_LINES
        and not ast.get_docstring(method)
    ]
    assert not bare
