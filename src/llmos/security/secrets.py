"""Secrets that drivers are given: keys of remote models. They are named, and never listed.

A name is looked for as a file of `$LLMOS_HOME/secrets`, which nobody but its owner may read, and
then among the variables of the server's environment that settings let through. Nothing here writes
one down, and no backup takes them along.
"""

from __future__ import annotations

import logging
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from llmos.abi.driver import Secret

log = logging.getLogger(__name__)

MAX_SECRET_BYTES = 16 << 10
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class Secrets:
    """Looked up when a model is loaded: a new value holds from the next load on."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self._folder = folder
        self._variables = variables

    def find(self, name: str) -> Secret | None:
        """None: it is not set, or cannot be used; the log says why, without it."""
        if not _NAME.fullmatch(name):
            return None
        value = self._read(name)
        if value is None:
            value = self._variables.get(name)
        value = (value or "").strip()
        if not value:
            return None
        if not value.isascii() or not value.isprintable():
            log.error("the secret %s has characters that no header may have", name)
            return None
        return Secret(value)

    def _read(self, name: str) -> str | None:
        path = self._folder / name
        try:
            mode = path.stat().st_mode
            if stat.S_IMODE(mode) & 0o077:
                log.error("the secret %s is not used: others may read its file (chmod 600)", name)
                return None
            with path.open("rb") as file:
                return file.read(MAX_SECRET_BYTES).decode("utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            log.error("the secret %s cannot be read: %s", name, type(error).__name__)
            return None
