"""Finds plugins by entry-point group and name."""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from typing import Any

from llmos.errors import PluginError

POLICIES = "llmos.policies"
"""Each names an `abi.policy.MakePolicy`."""
PROGRAMS = "llmos.programs"
"""Each names an `abi.program.ProgramEntry`."""

PROGRAMS = "llmos.programs"
"""Each names an `abi.program.ProgramEntry`."""


def names(group: str) -> list[str]:
    """What is installed in a group."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str) -> Any:
    """The object a plugin names. Raises PluginError naming what there is, or why it cannot load."""
    found = entry_points(group=group, name=name)
    if not found:
        known = names(group)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise PluginError(f"{group} has {', '.join(known)}, and no {name!r}{hint}")
    try:
        return next(iter(found)).load()
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{group}: {name} cannot be loaded: {error}") from error
