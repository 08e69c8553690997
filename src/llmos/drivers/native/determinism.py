"""Whether deterministic mode is the default, by device and dtype: a committed, measured table."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import torch

TABLE = Path(__file__).with_name("determinism.toml")


@cache
def read_table() -> dict[str, Any]:
    """`{device: {dtype: {default, ...}}}`."""
    return tomllib.loads(TABLE.read_text())


def is_default(device: str, dtype: torch.dtype) -> bool:
    """The committed default; False for what was never measured."""
    entry = read_table().get(device, {}).get(str(dtype).removeprefix("torch."), {})
    return bool(entry.get("default", False))
