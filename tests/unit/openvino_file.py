"""OpenVINO's files, operation by operation: what the reader must take, and what it must not."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.drivers.tiny import byte_fallback_tokenizer

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}


def layer(kind: str, name: str = "n", data: str = "", opset: str = "opset1") -> str:
    return f'<layer id="0" name="{name}" type="{kind}" version="{opset}">{data}</layer>'


def const(kind: str = "f32", shape: str = "4,2", offset: int = 0, size: int = 32) -> str:
    data = f'<data element_type="{kind}" shape="{shape}" offset="{offset}" size="{size}"/>'
    return layer("Const", data=data)


def inputs(*names: str) -> str:
    return "".join(layer("Parameter", name) for name in names)


DECODER = inputs("input_ids", "attention_mask", "position_ids", "beam_idx") + layer("ReadValue")


def net(layers: str, version: str = "11", head: str = "") -> bytes:
    text = f'<?xml version="1.0"?>{head}<net name="m" version="{version}">'
    return f"{text}<layers>{layers}</layers><edges/></net>".encode()


def make_openvino(
    folder: Path, layers: str = DECODER + const(), weights: bytes = bytes(64)
) -> Path:
    (folder / "openvino_model.xml").write_bytes(net(layers))
    (folder / "openvino_model.bin").write_bytes(bytes(64))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    byte_fallback_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
