"""The package's source as the arch tests see it: modules, syntax trees, functions."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.syntax import parse

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"


@dataclass(frozen=True)
class Module:
    """One file of the package: its dotted name, path, text and tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def num_lines(self) -> int:
        return self.text.count("\n")

    def is_in(self, package: str) -> bool:
        """True for the package itself and everything below it."""
        return self.name == package or self.name.startswith(package + ".")


@dataclass(frozen=True)
class Function:
    """A function or method with its qualified name inside its module."""

    module: str
    qualname: str
    node: ast.FunctionDef | ast.AsyncFunctionDef

    @property
    def num_lines(self) -> int:
        return (self.node.end_lineno or self.node.lineno) - self.node.lineno + 1


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every Python file under `src`, in order of name."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text()
        found.append(Module(name, path, text, parse(text, str(path))))
    return tuple(found)


def functions(module: Module) -> Iterator[Function]:
    """Every function of a module, methods and nested ones included."""
    yield from _walk(module.name, "", module.tree)


def _walk(module: str, prefix: str, node: ast.AST) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            qualname = f"{prefix}{child.name}"
            yield Function(module, qualname, child)
            yield from _walk(module, qualname + ".", child)
        elif isinstance(child, ast.ClassDef):
            yield from _walk(module, f"{prefix}{child.name}.", child)
        else:
            yield from _walk(module, prefix, child)


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Absolute dotted names a tree imports, at any depth, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "") if node.level == 0 else "." * node.level, node.lineno
