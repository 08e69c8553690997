"""A model's linears as compressed-tensors checkpoints, round to nearest: no data is looked at.

int8: W8A8, a scale per output row, activations per token. int4: W4A16, symmetric groups of 128,
eight values in an int32. Norms, embeddings and biases stay as they are (and with tied embeddings
so does the head).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.engine.peers.protocol import Setup

GROUP = 128
_INT8: dict[str, Any] = {
    "format": "int-quantized",
    "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
    "input_activations": {
        "num_bits": 8,
        "type": "int",
        "symmetric": True,
        "strategy": "token",
        "dynamic": True,
    },
}
_INT4: dict[str, Any] = {
    "format": "pack-quantized",
    "weights": {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": GROUP,
    },
    "input_activations": None,
}


def folder(setup: Setup) -> Path:
    """The model itself for bf16, else the quantized copy, made once."""
    source = Path(setup.model)
    if setup.precision == "bf16":
        return source
    target = Path(setup.cache) / f"vllm-{setup.precision}"
    if not target.exists():
        scratch = target.with_name(target.name + "-made")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        write(source, scratch, setup.precision)
        scratch.rename(target)
    return target


def write(source: Path, into: Path, precision: str) -> None:
    """Weights and configuration."""
    from safetensors.torch import load_file, save_file

    tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if "_proj.weight" in name:
            stem = name.removesuffix(".weight")
            made = int8(tensor) if precision == "int8" else int4(tensor)
            tensors.update({f"{stem}.{part}": value for part, value in made.items()})
        else:
            tensors[name] = tensor
    save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})
    scheme = dict(_INT8 if precision == "int8" else _INT4)
    kind = scheme.pop("format")
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": kind,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], **scheme}},
    }
    (into / "config.json").write_text(json.dumps(config))


def int8(weight: Any) -> dict[str, Any]:
    """(out, in): int8 values and a scale per row."""
    import torch

    scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
    values = (weight.float() / scale).round().clamp(-127, 127).to(torch.int8)
    return {"weight": values, "weight_scale": scale.to(torch.bfloat16)}


def int4(weight: Any) -> dict[str, Any]:
    """Eight values of a row in an int32, the lowest bits first; 8 is added to each."""
    import torch

    num_out, num_in = weight.shape
    grouped = weight.float().view(num_out, num_in // GROUP, GROUP)
    scale = grouped.abs().amax(2, keepdim=True).clamp(min=1e-8) / 7
    values = ((grouped / scale).round().clamp(-8, 7) + 8).to(torch.int32)
    eights = values.view(num_out, num_in // 8, 8)
    packed = torch.zeros(num_out, num_in // 8, dtype=torch.int32)
    for at in range(8):
        packed |= eights[:, :, at] << (4 * at)
    return {
        "weight_packed": packed,
        "weight_scale": scale.squeeze(2).to(torch.bfloat16),
        "weight_shape": torch.tensor([num_out, num_in], dtype=torch.int64),
    }
