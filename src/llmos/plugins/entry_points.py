"""Finds plugins by entry-point group and name."""

from __future__ import annotations

import difflib
import functools
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from llmos.errors import PluginError

POLICIES = "llmos.policies"
"""Each names an `abi.policy.MakePolicy`."""

PROGRAMS = "llmos.programs"
"""Each names an `abi.program.ProgramEntry`."""


@functools.cache
def _points(group: str) -> tuple[EntryPoint, ...]:
    """Looked up once: it reads a file of every installed distribution, which takes long and fails
    while no more files can be opened. What is installed later counts from the next start."""
    return tuple(entry_points(group=group))


def names(group: str) -> list[str]:
    """What is installed in a group."""
    return sorted({point.name for point in _points(group)})


def named(entry: str) -> Any:
    """The object of an entry string, `module:name`. Raises PluginError."""
    try:
        return EntryPoint("", entry, "").load()
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{entry} cannot be loaded: {error}") from error


def load(group: str, name: str) -> Any:
    """The object a plugin names. Raises PluginError naming what there is, or why it cannot load."""
    found = next((point for point in _points(group) if point.name == name), None)
    if found is None:
        known = names(group)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise PluginError(f"{group} has {', '.join(known)}, and no {name!r}{hint}")
    try:
        return found.load()
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{group}: {name} cannot be loaded: {error}") from error
