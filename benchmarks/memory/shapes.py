"""Models of random weights that differ in all that memory depends on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import models
from benchmarks.models import Shape


@dataclass(frozen=True)
class Case:
    """A model, and how it is loaded. `dtype`: what its config says, empty for that of the files."""

    name: str
    shape: Shape
    context_length: int
    num_slots: int
    dtype: str = ""

    @property
    def folder_name(self) -> str:
        return f"memory-{self.name}"


def _config(vocab: int, hidden: int, layers: int, heads: int, kv_heads: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 8192,
    }


def _gemma(kind: str, dtype: str, **more: Any) -> Shape:
    sizes = _config(65536, 256, 4, 4, 1) | {"head_dim": 64} | more
    return Shape(kind, dtype, sizes | {"tie_word_embeddings": True})


def _gpt2(dtype: str) -> Shape:
    sizes = {"vocab_size": 50257, "n_embd": 512, "n_layer": 6, "n_head": 8, "n_positions": 1024}
    return Shape("GPT2Config", dtype, sizes)


def _llama(dtype: str, tied: bool, *sizes: int) -> Shape:
    return Shape("LlamaConfig", dtype, _config(*sizes) | {"tie_word_embeddings": tied})


def _qwen2(dtype: str, tied: bool, *sizes: int) -> Shape:
    return Shape("Qwen2Config", dtype, _config(*sizes) | {"tie_word_embeddings": tied})


CASES = [
    Case("llama-fp32-untied", _llama("float32", False, 32000, 384, 6, 6, 2), 2048, 2),
    Case("llama-bf16-tied", _llama("bfloat16", True, 32000, 512, 8, 8, 4), 512, 16),
    Case("llama-fp16-untied", _llama("float16", False, 32000, 512, 8, 8, 8), 1024, 2),
    Case("llama-bf16-as-fp32", _llama("bfloat16", False, 32000, 512, 8, 8, 4), 512, 4, "float32"),
    Case("llama-fp32-as-bf16", _llama("float32", True, 32000, 512, 8, 8, 4), 512, 4, "bfloat16"),
    Case("llama-bf16-long", _llama("bfloat16", True, 16384, 256, 4, 8, 2), 8192, 1),
    Case("llama-bf16-one", _llama("bfloat16", True, 8192, 1024, 12, 16, 4), 256, 1),
    Case("qwen2-bf16-words", _qwen2("bfloat16", True, 151936, 512, 4, 8, 2), 256, 16),
    Case("qwen2-bf16-untied-words", _qwen2("bfloat16", False, 151936, 384, 4, 6, 2), 256, 8),
    Case("qwen2-fp32-wide", _qwen2("float32", True, 32768, 1024, 6, 16, 2), 256, 8),
    Case("qwen2-bf16-large", models.SHAPES["0.4b"], 512, 4),
    Case("gpt2-fp32", _gpt2("float32"), 1024, 4),
    Case("gpt2-bf16", _gpt2("bfloat16"), 512, 4),
    Case("gemma-bf16", _gemma("GemmaConfig", "bfloat16"), 2048, 4),
    Case("gemma2-fp32", _gemma("Gemma2Config", "float32", sliding_window=256), 2048, 4),
]
"""Vocabulary, width, layers, heads, key heads; context; slots."""


def folder(case: Case) -> Path:
    """Of the case's model, made if it is not there."""
    models.SHAPES[case.folder_name] = case.shape
    made = models.folder(case.folder_name)
    if case.dtype:
        path = made / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": case.dtype}))
    return made
