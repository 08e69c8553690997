"""Small adapters, whole and broken, made from nothing, for the models of `model_folder`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmos.weights.digest import file_digest
from tests.unit.model_folder import safetensors_bytes

UP = "model.layers.0.mlp.up_proj"
PLAIN: dict[str, list[int]] = {f"{UP}.lora_A.weight": [2, 4], f"{UP}.lora_B.weight": [4, 2]}


def make_bare(folder: Path, shapes: dict[str, list[int]] = PLAIN, **config: Any) -> Path:
    """As PEFT leaves one; `config` overrides fields."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(fields | config))
    named = {f"base_model.model.{name}": shape for name, shape in shapes.items()}
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(named))
    return folder


def make_adapter(
    folder: Path, base: Path, shapes: dict[str, list[int]] = PLAIN, **config: Any
) -> Path:
    """As a run leaves one over the model in `base`."""
    make_bare(folder / "adapter", shapes, **config)
    weights = {"model.safetensors": file_digest(base / "model.safetensors")}
    claim = {"base": "tiny", "weights": weights}
    (folder / "adapter" / "llmos.json").write_text(json.dumps(claim))
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((base / name).read_bytes())
    return folder
