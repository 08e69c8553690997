"""What the suites must know of each driver to hold it to its contract: one entry a driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.drivers.tiny import VOCAB_SIZE, make_model
from tests.unit.gguf_file import make_gguf


def _nothing(folder: Path) -> None:
    """Of a driver that reads no files."""


def _no_options(num_tokens: int) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Kit:
    """`make_model` writes a small model of its format; `ask` is `WorkItem.options` for so many
    tokens; `outside` is no token of its vocabulary."""

    make_model: Callable[[Path], None]
    vocab_size: int
    outside: int
    ask: Callable[[int], dict[str, Any]] = _no_options
    reads_files: bool = True


def _make_native(folder: Path) -> None:
    make_model(folder)


def _make_gguf(folder: Path) -> None:
    make_gguf(folder)


KITS: dict[str, Kit] = {
    "echo": Kit(
        make_model=_nothing,
        vocab_size=300,
        outside=0x110000,
        ask=lambda num_tokens: {"tokens": num_tokens},
        reads_files=False,
    ),
    "gguf": Kit(make_model=_make_gguf, vocab_size=VOCAB_SIZE, outside=VOCAB_SIZE),
    "native": Kit(make_model=_make_native, vocab_size=VOCAB_SIZE, outside=VOCAB_SIZE),
}
