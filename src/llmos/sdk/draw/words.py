"""Other people's words, made fit to be shown: nothing in them acts on a terminal or a page."""

from __future__ import annotations

import html
import re

_ANSI = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|\x1b[@-Z\\-_]?"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Without escape sequences of terminals, control characters and marks that turn text around."""
    return _CONTROL.sub("", _ANSI.sub("", text))


def escaped(text: object) -> str:
    """As text in markup, whatever it is."""
    return html.escape(plain(str(text)))
