"""A long text in parts that can be spoken one after the other. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

PART_CHARS = 200
"""About a quarter of a minute of speech."""

_ENDS = (
    re.compile(r"[.!?](?=[\s\"'”’)\]])|[。！？…\n]"),
    re.compile(r"[,;:](?=\s)|[，、；：]"),
    re.compile(r"\s"),
)
"""Where a text may be parted: the earlier kinds before the later ones."""


def split_sentences(text: str, most: int = PART_CHARS) -> list[str]:
    """Parts of at most `most` characters, none of them blank: as many sentences as fit, else as
    much of one as fits, to a comma, a space, or anywhere."""
    return [part for part in _parts(text.strip(), max(1, most)) if part]


def _parts(text: str, most: int) -> Iterator[str]:
    while len(text) > most:
        cut = _last_end(text[: most + 1], most)
        yield text[:cut].strip()
        text = text[cut:].strip()
    yield text


def _last_end(text: str, most: int) -> int:
    for ends in _ENDS:
        found = [match.end() for match in ends.finditer(text) if match.end() <= most]
        if found:
            return found[-1]
    return most
