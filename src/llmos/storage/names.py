"""File names nobody vouches for."""

from __future__ import annotations

import unicodedata

from llmos.errors import InvalidRequest

MAX_NAME_BYTES = 255


def is_plain(text: str) -> bool:
    """No control characters and no lone surrogates; any script and emoji are fine."""
    return not any(unicodedata.category(c) in ("Cc", "Cs") for c in text)


def check_filename(name: str, *, folders: int = 0) -> str:
    """The name, if it can only mean a file below the folder it is joined to.

    At most `folders` levels of sub-folders (`/`). Refused with InvalidRequest: empty or hidden
    parts, backslashes, control characters, lone surrogates, parts over 255 bytes.
    """
    parts = name.split("/")
    if len(parts) > folders + 1:
        raise InvalidRequest(f"file name {name[:80]!r} has too many folders", param="filename")
    for part in parts:
        if not part or part.startswith(".") or "\\" in part or not is_plain(part):
            raise InvalidRequest(f"bad file name {name[:80]!r}", param="filename")
        if len(part.encode(errors="replace")) > MAX_NAME_BYTES:
            raise InvalidRequest(f"file name {name[:40]!r}… is too long", param="filename")
    return name
