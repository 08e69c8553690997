"""What the page Settings shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from llmos.abi.settings import SettingInfo

ORIGINS = ("all", "set", "default")
"""Which are shown: all, those somebody set, those nobody did."""
KNOWN_ORIGINS = frozenset({"flag", "environment", "default"})


def rows(
    settings: Iterable[SettingInfo], words: str, origin: str, name: Callable[[str, str], str]
) -> list[dict[str, Any]]:
    """Those in which every word is found; `name(key, default)` translates an origin."""
    wanted = words.casefold().split()
    made = []
    for one in settings:
        text = f"{one.key} {one.value} {one.description}".casefold()
        is_default = one.origin == "default"
        if origin != "all" and is_default != (origin == "default"):
            continue
        if not all(word in text for word in wanted):
            continue
        shown = name("origin." + one.origin, one.origin)
        chip = {"chip": shown, "tone": "" if is_default else "good"}
        where = chip if one.origin in KNOWN_ORIGINS else {"text": one.origin, "look": "mono"}
        cells = {
            "key": {"text": one.key, "look": "mono"},
            "value": _value(one.value),
            "origin": where,
            "meaning": one.description,
        }
        made.append({"id": one.key, "cells": cells})
    return made


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None or value == "" else str(value)
