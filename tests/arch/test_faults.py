"""Crash points: what is named is used, what is used is named, and no name is computed."""

from __future__ import annotations

import ast
from pathlib import Path

from llmos.telemetry import faults
from tests.syntax import parse


def _uses(repository: Path) -> dict[str, list[str]]:
    """Point to the places that reach it; a name that is no literal is listed under ""."""
    found: dict[str, list[str]] = {}
    for path in sorted((repository / "src" / "llmos").rglob("*.py")):
        for node in ast.walk(parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            if (name.id if isinstance(name, ast.Name) else name) != "reached":
                continue
            argument = node.args[0]
            point = argument.value if isinstance(argument, ast.Constant) else ""
            found.setdefault(str(point), []).append(f"{path.name}:{node.lineno}")
    return found


def test_every_use_is_named_and_every_name_used(repository: Path) -> None:
    uses = _uses(repository)
    assert "" not in uses, f"a crash point's name must be a literal: {uses['']}"
    assert sorted(uses) == sorted(faults.POINTS)


def test_points_are_named_alike() -> None:
    for name, line in faults.POINTS.items():
        assert name.count(".") >= 2 and name == name.lower() and line and line[-1] != ".", name


def test_a_hook_hears_of_points_and_may_raise() -> None:
    heard: list[str] = []
    with faults.installed(heard.append):
        faults.reached("database.group.begun")
    faults.reached("database.group.begun")
    assert heard == ["database.group.begun"]
