"""The import contracts name every package, so that a new one cannot slip past them."""

from __future__ import annotations

import ast
import configparser

from tests.arch.source import ROOT, SRC, imported, modules

DATA_ONLY = {"pilot"}


def _contract(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser[f"importlinter:contract:{name}"]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _layers() -> dict[str, int]:
    """Package: its layer, 0 on top."""
    return {
        tail.strip().strip("()"): depth
        for depth, layer in enumerate(_lines(_contract("layers")["layers"]))
        for tail in layer.split("|")
    }


def _packages() -> set[str]:
    found = {p.parent.name for p in (SRC / "llmos").glob("*/__init__.py")}
    found |= {p.stem for p in (SRC / "llmos").glob("*.py")} - {"__init__"}
    return found - DATA_ONLY


def test_every_package_has_a_layer() -> None:
    assert _packages() <= set(_layers())


def test_the_kernel_contract_forbids_all_between_kernel_and_its_four() -> None:
    layers = _layers()
    known = {"ipc", "telemetry", "abi", "errors"}
    below = {p for p in layers if layers[p] > layers["kernel"]} - known
    forbidden = {m.split(".")[1] for m in _lines(_contract("kernel")["forbidden_modules"])}
    assert forbidden == below


def test_the_sdk_contract_forbids_all_but_abi_and_errors() -> None:
    layers = _layers()
    below = {p for p in layers if layers[p] > layers["sdk"]} - {"abi", "errors"}
    forbidden = {m.split(".")[1] for m in _lines(_contract("sdk")["forbidden_modules"])}
    assert forbidden == below


def test_excused_cycles_are_of_annotations_only() -> None:
    """What the contract ignores must never be imported when the program runs."""
    trees = {m.name: m.tree for m in modules()}
    for line in _lines(_contract("acyclic")["ignore_imports"]):
        importer, target = line.split(" -> ")
        runs = set()
        for node in _running(trees[importer]):
            runs |= {name for name, _ in imported(ast.Module([node], []))}
        assert target not in runs, line


def _running(tree: ast.Module) -> list[ast.stmt]:
    """Statements of a module that are not under `if TYPE_CHECKING`."""
    return [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
