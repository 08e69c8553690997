"""Only settings and sdk read the environment: a setting has one door, with its origin on record."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.arch.source import Module, modules

READERS = ("llmos.settings", "llmos.sdk")
NAMES = {"environ", "environb", "getenv", "getenvb"}


def _written(tree: ast.Module) -> set[int]:
    """Nodes `os.environ` that are only written to, as before an engine is imported."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            found.add(id(node.value))
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "update"
        ):
            found.add(id(node.func.value))
    return found


def _uses(module: Module) -> Iterator[str]:
    written = _written(module.tree)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in NAMES and id(node) not in written:
            yield f"{module.name}:{node.lineno}"
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (f"{module.name}:{node.lineno}" for a in node.names if a.name in NAMES)


def test_only_settings_and_sdk_read_the_environment() -> None:
    uses = [
        use for m in modules() if not any(m.is_in(reader) for reader in READERS) for use in _uses(m)
    ]
    assert not uses
