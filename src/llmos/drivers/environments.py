"""What is installed, here or in an environment of an engine's own. Nothing is imported or run."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path


def find_problem(python: str) -> str | None:
    """Why this is no interpreter of a virtual environment; None: it is one."""
    path = Path(python)
    if not path.is_absolute():
        return "not an absolute path"
    if not path.is_file() or not os.access(path, os.X_OK):
        return "no such program"
    return None if _packages(python) else "not of a virtual environment (bin/python of one)"


def find_version(names: str, python: str = "") -> str | None:
    """A distribution's name and version, of the first of `a|b` that is there; `python` empty: in
    our own environment."""
    where = _packages(python) if python else sys.path
    for name in names.split("|"):
        for found in metadata.distributions(name=name, path=where):
            return f"{name} {found.version}"
    return None


def _packages(python: str) -> list[str]:
    """Where it keeps its packages. The link to the interpreter is not followed: what it is linked
    to belongs to another environment."""
    root = Path(python).parent.parent
    return [str(folder) for folder in sorted(root.glob("lib*/python3*/site-packages"))]
