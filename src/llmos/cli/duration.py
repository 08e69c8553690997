"""Durations as people type them: `90s`, `10m`, `2h`, `0`, `forever`."""

from __future__ import annotations

import re

import typer

FOREVER_S = 3_153_600_000.0
"""A hundred years: the longest that the server takes."""

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]{1,10}(?:\.[0-9]{1,9})?) ?([a-z]*)")


def parse_duration(text: str) -> float:
    """Seconds; a bare number is seconds too. Raises BadParameter."""
    word = text.strip().lower()
    if word == "forever":
        return FOREVER_S
    match = _DURATION.fullmatch(word)
    if match is None or match[2] not in _UNITS_S:
        raise typer.BadParameter(f"{text!r} is none of 90s, 10m, 2h, 1d, 0, forever")
    duration_s = float(match[1]) * _UNITS_S[match[2]]
    if duration_s > FOREVER_S:
        raise typer.BadParameter(f"{text!r} is over a hundred years; say forever")
    return duration_s
