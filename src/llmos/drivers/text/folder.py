"""What the text side of a driver reads from a model folder. Torch-free."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from llmos.drivers.text.detokenize import Decoding
from llmos.errors import LoadFailed

_log = logging.getLogger(__name__)


def read_decoding(folder: Path) -> Decoding:
    """How its tokens become text. Raises LoadFailed."""
    try:
        return Decoding(Tokenizer.from_file(str(folder / "tokenizer.json")))
    except Exception as error:
        raise LoadFailed(f"tokenizer.json: {str(error)[:300]}") from error


def find_ends(folder: Path) -> frozenset[int]:
    """End tokens: of generation_config.json if it names any, else of config.json."""
    for name in ("generation_config.json", "config.json"):
        said = _read(folder / name)
        section = said.get("text_config")
        for fields in (said, section if isinstance(section, dict) else {}):
            found = fields.get("eos_token_id")
            ids = found if isinstance(found, list) else [found]
            if ends := frozenset(i for i in ids if isinstance(i, int)):
                return ends
    return frozenset()


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError):
        _log.debug("no readable %s", path.name)
        return {}
    return said if isinstance(said, dict) else {}
