"""Small model folders, whole and broken, made from nothing."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "float32",
    "hidden_size": 4,
    "max_position_embeddings": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
    "vocab_size": 8,
}
TOKENIZER: dict[str, Any] = {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "好": 1}}}
SHAPES = {"model.embed_tokens.weight": [8, 4], "model.layers.0.mlp.up_proj.weight": [4, 4]}


def safetensors_bytes(shapes: dict[str, list[int]], fill: int = 0) -> bytes:
    """A whole safetensors file of F32 tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = 4
        for n in shape:
            size *= n
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return raw_safetensors(header, bytes([fill]) * at)


def raw_safetensors(header: Any, data: bytes) -> bytes:
    """A file with this header, right or wrong."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def make_model(folder: Path, fill: int = 0, **config: Any) -> Path:
    """A folder that holds a model; `config` overrides fields (None removes one)."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {k: v for k, v in (CONFIG | config).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(SHAPES, fill))
    return folder


def make_sharded(folder: Path) -> Path:
    """The same in two shards with an index."""
    make_model(folder)
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, (name, shape) in enumerate(SHAPES.items(), 1):
        shard = f"model-{number:05}-of-00002.safetensors"
        (folder / shard).write_bytes(safetensors_bytes({name: shape}))
        weight_map[name] = shard
    index = {"metadata": {"total_size": 192}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
