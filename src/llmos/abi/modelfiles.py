"""Which files of a model's sub-folders belong to it: few do, and both ends of an upload agree."""

from __future__ import annotations

import re

_MODULE = re.compile(r"[0-9]+_[A-Za-z]{1,40}/config\.json")
"""Of sentence-transformers: how hidden states become a vector."""

_TEMPLATE = re.compile(r"additional_chat_templates/[^/]+\.jinja")
"""Named chat templates."""

_ADAPTER = re.compile(r"adapter/(adapter_config\.json|adapter_model\.safetensors|llmos\.json)")
"""An adapter over the model beside it."""


def is_of_subfolder(name: str) -> bool:
    """Whether a name with a `/` is one of these."""
    return any(kind.fullmatch(name) for kind in (_MODULE, _TEMPLATE, _ADAPTER))
