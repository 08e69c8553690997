"""The licence in a model card's front matter. A card is text for people, no cause to refuse."""

from __future__ import annotations

import re
from pathlib import Path

from llmos.weights.limits import MAX_CARD_BYTES

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"^(license|license_name):[ \t]*([^\r\n#]*)", re.MULTILINE)


def find_license(folder: Path) -> str:
    """The card's licence (`mit`, `apache-2.0`, the name when it says `other`), empty if unsaid."""
    try:
        with (folder / "README.md").open("rb") as file:
            text = file.read(MAX_CARD_BYTES).decode(errors="replace")
    except OSError:
        return ""
    matter = _FRONT_MATTER.match(text)
    if matter is None:
        return ""
    fields = {name: value.strip().strip("\"'") for name, value in _FIELD.findall(matter[1])}
    found = fields.get("license", "")
    if found == "other":
        found = fields.get("license_name") or found
    return "".join(c for c in found if c.isprintable())[:100]
