"""The names of a classifier's classes, as its configuration has them."""

from __future__ import annotations

from typing import Any

MAX_LABELS = 100_000


def find_labels(config: dict[str, Any]) -> list[str]:
    """By number; empty where the configuration names none, or not all from 0 on."""
    named = config.get("id2label")
    if not isinstance(named, dict) or not 0 < len(named) <= MAX_LABELS:
        return []
    found = [named.get(str(i), named.get(i)) for i in range(len(named))]
    return [] if any(label is None for label in found) else [str(label)[:256] for label in found]
