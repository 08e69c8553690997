"""Mechanical mutants that break no promise a client could see, each with why.

The key is the module and what was changed in which line, so that an entry dies with its line.
"""

from __future__ import annotations

EXCUSES: dict[tuple[str, str], str] = {}
