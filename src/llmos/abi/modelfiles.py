"""Which files of a model's sub-folders belong to it: few do, and both ends of an upload agree."""

from __future__ import annotations

import re

_MODULE = re.compile(r"[0-9]+_[A-Za-z]{1,40}/config\.json")
"""Of sentence-transformers: how hidden states become a vector."""

_TEMPLATE = re.compile(r"additional_chat_templates/[^/]+\.jinja")
"""Named chat templates."""


def is_of_subfolder(name: str) -> bool:
    """Whether a name with a `/` is one of these."""
    return bool(_MODULE.fullmatch(name) or _TEMPLATE.fullmatch(name))
