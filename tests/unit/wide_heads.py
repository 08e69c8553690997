"""A Llama with wider heads that computes the same: for engines whose smallest head is wider.

Rotations turn pairs (i, i + D/2) of a head by angles that fall with i/D: a pair of the narrow head
goes where the wide one has the same angle, zeroes are everywhere else, and queries are scaled by
what the wider head divides scores by.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

Weights = np.ndarray


def widen(weight: Weights, num_heads: int, places: list[int], size: int) -> Weights:
    """(heads x D, columns) to (heads x size, columns): row i of a head goes to its place."""
    narrow = weight.reshape(num_heads, len(places), -1)
    wide = np.zeros((num_heads, size, narrow.shape[-1]), weight.dtype)
    wide[:, places] = narrow
    return wide.reshape(num_heads * size, -1)


def make_wide(source: Path, target: Path, size: int) -> Path:
    """`source` holds float32 safetensors; `size` is a multiple of its heads' size."""
    from safetensors.numpy import load_file, save_file

    config = json.loads((source / "config.json").read_text())
    old, num_heads = config["head_dim"], config["num_attention_heads"]
    num_kv_heads, step = config["num_key_value_heads"], size // old
    turned = [half * size // 2 + i * step for half in (0, 1) for i in range(old // 2)]
    plain = list(range(old))
    target.mkdir(exist_ok=True)
    made: dict[str, Weights] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        wide = weight
        if "q_proj" in name:
            wide = widen(weight, num_heads, turned, size) * np.float32(step**0.5)
        elif "k_proj" in name:
            wide = widen(weight, num_kv_heads, turned, size)
        elif "v_proj" in name:
            wide = widen(weight, num_kv_heads, plain, size)
        elif "o_proj" in name:
            wide = widen(weight.T, num_heads, plain, size).T
        made[name] = np.ascontiguousarray(wide)
    save_file(made, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(config | {"head_dim": size}))
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    return target
