"""Described and run, against Transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from llmos.drivers.native.fused.describe import describe
from llmos.drivers.native.fused.spec import Decoder
from tests.contract.fused.models import (
    LENGTH,
    VOCAB_SIZE,
    make,
    read_config,
    read_shapes,
    read_tensors,
)
from tests.contract.fused.reference import Reference


def described(architecture: str, folder: Path) -> Decoder:
    """What a folder holds."""
    return describe(read_config(architecture, folder), read_shapes(folder))


def worst(architecture: str, folder: Path, length: int = LENGTH, **overrides: Any) -> float:
    """The largest max |difference| / max |logit| of any position."""
    model = make(architecture, folder, **overrides)
    return worst_of(model, architecture, folder, length)


def worst_of(model: Any, architecture: str, folder: Path, length: int = LENGTH) -> float:
    """The same of a model that a folder holds."""
    ids = torch.randint(0, VOCAB_SIZE, (length,), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = model(input_ids=ids[None], use_cache=False).logits[0]
        found = Reference(described(architecture, folder), read_tensors(folder)).logits(
            ids.tolist()
        )
    assert expected.std() > 0.01  # there is something to compare
    return float(((found - expected).abs().amax(-1) / expected.abs().amax(-1)).max())
