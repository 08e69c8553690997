"""All that a run goes on from, in one file: weights, optimizer, schedule, generators, place.

Read with `weights_only`: it holds tensors, numbers and texts, no code.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

FORMAT = 1


def learned(model: Any) -> dict[str, torch.Tensor]:
    """What changes: parameters that are learned, and buffers. What is frozen is the base's."""
    state = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return state | {f"buffer:{name}": b.detach() for name, b in model.named_buffers()}


def restore(model: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Copy into place what `learned` told."""
    places = learned(model)
    if places.keys() != state.keys():
        other = min(places.keys() ^ state.keys())
        raise ValueError(f"the checkpoint is of another model: {other}")
    with torch.no_grad():
        for name, value in state.items():
            places[name].copy_(value)


def generators() -> dict[str, Any]:
    """The state of every global generator."""
    version, words, gauss = random.getstate()
    name, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    state: dict[str, Any] = {
        "python": (version, list(words), gauss),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), place, has_gauss, cached),
        "torch": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.random.get_rng_state_all()
    return state


def set_generators(state: Mapping[str, Any]) -> None:
    """As they were."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, place, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), place, has_gauss, cached))
    torch.random.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.random.set_rng_state_all(state["cuda"])


def of_rank(state: Mapping[str, Any], rank: int, size: int) -> dict[str, Any]:
    """A checkpoint as one process of a run goes on from it. Raises ValueError for one that another
    number of processes made."""
    others = state.get("others", [])
    if len(others) != size - 1:
        raise ValueError(f"the checkpoint is of {len(others) + 1} processes, not of {size}")
    return {**state, **others[rank - 1]} if rank else dict(state)


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Raises OSError on a full disk."""
    torch.save({"format": FORMAT, **state}, path)


def read(path: Path) -> dict[str, Any]:
    """Raises ValueError for one of another release."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state.get("format") != FORMAT:
        raise ValueError("the checkpoint is of another release")
    return state
