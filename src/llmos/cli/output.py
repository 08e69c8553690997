"""What commands write to stdout: text for people, or with `--json` one JSON document per line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from llmos.cli.text import table, visible


def emit_json(value: Any) -> None:
    """One line of JSON, abi structs as the server sends them. Flushed: it may be a stream."""
    import msgspec

    from llmos.sdk.wire import to_wire

    sys.stdout.write(msgspec.json.encode(to_wire(value)).decode() + "\n")
    sys.stdout.flush()


def emit(text: str) -> None:
    """A line of text, made harmless. Flushed: someone may follow it through a pipe."""
    sys.stdout.write(visible(text) + "\n")
    sys.stdout.flush()


def emit_table(headers: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """A table, or on stderr the word that there is nothing to show."""
    if rows:
        emit(table(headers, rows))
    else:
        note(empty)


def terminal_width() -> int | None:
    """Columns of the terminal that people read this on; None when it goes elsewhere."""
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def note(text: str) -> None:
    """A remark for the person at the terminal; never part of the output."""
    sys.stdout.flush()
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()
