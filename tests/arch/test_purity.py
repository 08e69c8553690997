"""`kernel.core` decides and does nothing else: no clock, chance, loop, file, socket or process.

`kernel.sim` is as pure; chance is given to it, so it may name the class, and nothing of the module.
The native driver's table of pages decides, too, and touches no tensor.
"""

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
ALLOWED_IN_SIM = ALLOWED | {"csv", "datetime", "hashlib", "json", "random"}
ALLOWED_PACKAGES = ("llmos.abi", "llmos.errors", "llmos.kernel.core")
IMPURE_BUILTINS = {"open", "input", "print", "exec", "eval", "__import__"}
IMPURE_NAMES = {("llmos.abi.ids", "new_id")}

PAGES = {"llmos.drivers.native.paging", "llmos.drivers.native.prefix"}

CORE = [m for m in modules() if m.is_in("llmos.kernel.core")]
SIM = [m for m in modules() if m.is_in("llmos.kernel.sim")]
PAGING = [m for m in modules() if m.name in PAGES]


def test_there_is_a_core_and_a_simulator_and_a_table_of_pages() -> None:
    assert CORE
    assert SIM
    assert len(PAGING) == len(PAGES)


@pytest.mark.parametrize("module", CORE, ids=lambda m: m.name)
def test_imports_nothing_with_effects(module: Module) -> None:
    assert not _wrong_imports(module, ALLOWED, ALLOWED_PACKAGES)


@pytest.mark.parametrize("module", PAGING, ids=lambda m: m.name)
def test_the_table_of_pages_imports_nothing_with_effects(module: Module) -> None:
    assert not _wrong_imports(module, ALLOWED, tuple(PAGES))


@pytest.mark.parametrize("module", SIM, ids=lambda m: m.name)
def test_the_simulator_is_given_its_chance(module: Module) -> None:
    assert not _wrong_imports(module, ALLOWED_IN_SIM, (*ALLOWED_PACKAGES, "llmos.kernel.sim"))
    used = {
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Name) and node.value.id == "random")
            or node.attr in {"now", "today", "utcnow"}
        )
        and node.attr != "Random"
    }
    assert not used


def _wrong_imports(module: Module, allowed: set[str], packages: tuple[str, ...]) -> list[str]:
    return [
        f"line {line}: {name}"
        for name, line in imported(module.tree)
        if name not in allowed and not name.startswith(packages)
    ]


@pytest.mark.parametrize("module", [*CORE, *SIM, *PAGING], ids=lambda m: m.name)
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
