"""Draft models made of a model: disturbed, cut short, or knowing nothing; and the model made wide.

There is no trained pair of models of one vocabulary small enough for a test. `stretched` gives a
small one the cost of a large one: it says what the small one says, but for rounding.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def _derived(folder: Path, into: Path, change: Callable[[Tensors], Tensors]) -> Path:
    into.mkdir()
    for path in folder.iterdir():
        if path.suffix == ".json":
            shutil.copyfile(path, into / path.name)
    torch.manual_seed(5)
    tensors = change(load_file(folder / "model.safetensors"))
    held = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(held, into / "model.safetensors", metadata={"format": "pt"})
    return into


def disturbed(folder: Path, into: Path, noise: float) -> Path:
    """Every matrix with noise of so much of its own deviation."""

    def change(tensors: Tensors) -> Tensors:
        return {
            name: t + torch.randn_like(t) * t.std() * noise if t.dim() > 1 else t
            for name, t in tensors.items()
        }

    return _derived(folder, into, change)


def random_weights(folder: Path, into: Path) -> Path:
    """Of the same shape, and nothing else."""

    def change(tensors: Tensors) -> Tensors:
        return {
            name: torch.randn_like(t) * t.std() if t.dim() > 1 else t for name, t in tensors.items()
        }

    return _derived(folder, into, change)


def cut_short(folder: Path, into: Path, num_layers: int) -> Path:
    """Its first layers."""
    dropped = tuple(f"model.layers.{number}." for number in range(num_layers, 99))

    def change(tensors: Tensors) -> Tensors:
        return {name: t for name, t in tensors.items() if not name.startswith(dropped)}

    made = _derived(folder, into, change)
    config = json.loads((made / "config.json").read_text())
    config["num_hidden_layers"] = num_layers
    (made / "config.json").write_text(json.dumps(config))
    return made


def stretched(folder: Path, into: Path, *, factor: int, intermediate_size: int) -> Path:
    """A Llama `factor` times (a square) as wide, of the same layers, in bfloat16.

    What is added is random as far as nothing comes of it: its inputs, or the weights that would
    carry it on, are zero. Norms see the same values among more zeros, and weigh them less.
    """
    root = math.isqrt(factor)
    if root * root != factor:
        raise ValueError(f"{factor} is no square")

    def change(tensors: Tensors) -> Tensors:
        made = {}
        for name, t in tensors.items():
            if t.dim() == 1:
                made[name] = torch.cat([t / root, torch.zeros(len(t) * (factor - 1))])
                continue
            rows, columns = factor * t.shape[0], factor * t.shape[1]
            kind = name.split(".")[-2]
            if kind in ("embed_tokens", "lm_head"):
                rows = t.shape[0]
            rows = intermediate_size if kind in ("gate_proj", "up_proj") else rows
            columns = intermediate_size if kind == "down_proj" else columns
            ends_here = kind in ("embed_tokens", "lm_head", "o_proj", "down_proj")
            wide = torch.zeros(rows, columns) if ends_here else torch.randn(rows, columns) * t.std()
            wide[: t.shape[0], : t.shape[1]] = t
            made[name] = wide
        return {name: t.to(torch.bfloat16) for name, t in made.items()}

    made = _derived(folder, into, change)
    config = json.loads((made / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    config |= {
        "hidden_size": factor * config["hidden_size"],
        "intermediate_size": intermediate_size,
        "num_attention_heads": factor * heads,
        "num_key_value_heads": factor * kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": config["rms_norm_eps"] / factor,
        "dtype": "bfloat16",
    }
    config.pop("torch_dtype", None)
    (made / "config.json").write_text(json.dumps(config))
    return made
