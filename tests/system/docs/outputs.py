"""What a page says a command prints, beside what it printed."""

from __future__ import annotations

import re

TOLERANCE = 0.05
"""By which a number with a decimal point, a score, may differ from a page's."""

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_DECIMAL = re.compile(r"\d+\.\d+")


def differs(wanted: str, printed: str) -> str:
    """Why it is not what the page has; empty if it is.

    Whole numbers, versions, addresses, times and ids may be others: they count, or name what is
    only here. `...` is whatever there is on the rest of its line, or until what stands after it.
    """
    figures, pattern = [], ""
    for part in re.split(rf"(\.\.\.|{_DECIMAL.pattern})", _plain(wanted)):
        if part == "...":
            pattern += r"[^\n]*?"
        elif _DECIMAL.fullmatch(part):
            figures.append(part)
            pattern += f"({_DECIMAL.pattern})"
        else:
            pattern += re.escape(part)
    found = re.fullmatch(pattern, _plain(printed))
    if found is None:
        return "other words"
    for ours, theirs in zip(figures, found.groups(), strict=True):
        if abs(float(ours) - float(theirs)) > TOLERANCE:
            return f"{theirs} for {ours}"
    return ""


def _plain(text: str) -> str:
    """Line by line, with one blank where there are several."""
    text = re.sub(r"\b(?:[a-z]+_)?[0-9a-f]{12,}\b", "ID", text)
    text = _NUMBER.sub(lambda m: m[0] if _DECIMAL.fullmatch(m[0]) else "0", text)
    return "\n".join(" ".join(line.split()) for line in text.splitlines())
