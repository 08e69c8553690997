"""Llama and Qwen2 models of Transformers as GGUF in bf16, without a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def renamed(name: str) -> str:
    """A tensor's name in GGUF. Raises KeyError for one that is not of these shapes."""
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    part, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{PARTS[part]}.{kind}"


def interleaved(weight: Any, num_heads: int) -> Any:
    """Rows of a head from halves to pairs: llama.cpp rotates neighbours in this architecture."""
    half = weight.shape[0] // num_heads // 2
    split = weight.reshape(num_heads, 2, half, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(weight.shape)


def write(source: Path, into: Path) -> None:
    """The whole file. Matrices in bf16, vectors in fp32."""
    import gguf

    config = json.loads((source / "config.json").read_text())
    arch = config["model_type"]
    writer = gguf.GGUFWriter(str(into), arch)
    heads = {
        "q_proj": config["num_attention_heads"],
        "k_proj": config["num_key_value_heads"],
    }
    head_size = config["hidden_size"] // config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads["q_proj"])
    writer.add_head_count_kv(heads["k_proj"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    for name, raw in read(source / "model.safetensors"):
        projection = name.split(".")[-2]
        is_rotated = arch == "llama" and projection in heads
        kept = interleaved(raw, heads[projection]) if is_rotated else raw
        if kept.ndim == 1:
            writer.add_tensor(renamed(name), as_float(kept))
        else:
            kind = gguf.GGMLQuantizationType.BF16
            data = kept.view("uint8").reshape(kept.shape[0], -1)
            writer.add_tensor(renamed(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rope_theta(config: dict[str, Any]) -> float:
    """Where Transformers 5 keeps it, or where 4 did."""
    return float((config.get("rope_parameters") or config).get("rope_theta", 10000.0))


def read(path: Path) -> Any:
    """Name and bf16 bits (uint16) of every tensor."""
    import numpy as np

    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        begin = file.tell()
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] != "BF16":
                raise ValueError(f"{name} is {entry['dtype']}, not BF16")
            file.seek(begin + entry["data_offsets"][0])
            bits = file.read(entry["data_offsets"][1] - entry["data_offsets"][0])
            yield name, np.frombuffer(bits, dtype=np.uint16).reshape(entry["shape"]).copy()


def as_float(bits: Any) -> Any:
    """bf16 bits as fp32."""
    import numpy as np

    return (bits.astype(np.uint32) << 16).view(np.float32)
