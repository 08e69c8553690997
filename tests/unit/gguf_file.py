"""GGUF files made from nothing, right and wrong."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10
_FORMS = {0: "<B", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q"}
VOCAB_SIZE = 300
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<a>"

Value = tuple[int, Any]
"""A type's number and a value; of an array: the type of its elements, and them."""


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def packed(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return text(value)
    if kind == ARRAY:
        inner, elements = value
        head = struct.pack("<IQ", inner, len(elements))
        return head + b"".join(packed(inner, element) for element in elements)
    return struct.pack(_FORMS[kind], value)


def tensor_entry(name: str, shape: tuple[int, ...], kind: int, begin: int) -> bytes:
    """`shape`: the row's length first."""
    dimensions = struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + struct.pack("<I", len(shape)) + dimensions + struct.pack("<IQ", kind, begin)


def gguf_bytes(
    values: dict[str, Value], tensors: dict[str, np.ndarray[Any, Any]], alignment: int = 32
) -> bytes:
    """A whole file of float32 tensors."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, (kind, value) in values.items():
        head += text(key) + struct.pack("<I", kind) + packed(kind, value)
    data = b""
    for name, tensor in tensors.items():
        head += tensor_entry(name, tensor.shape[::-1], 0, len(data))
        data += tensor.astype("<f4").tobytes()
        data += bytes(-len(data) % alignment)
    return head + bytes(-len(head) % alignment) + data


def vocabulary() -> dict[str, Value]:
    """Llama 2's kind: pieces with ▁, bytes for the rest, `<s>` put first."""
    pieces = [*"▁abcdehot.", "▁t", "▁th", "▁the"]
    tokens = ["<unk>", "<s>", "</s>", *[f"<0x{i:02X}>" for i in range(256)], *pieces]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(pieces)]
    num_more = VOCAB_SIZE - len(tokens)
    tokens += [f"<more {i}>" for i in range(num_more)]
    kinds += [5] * num_more  # unused
    scores = [0.0] * 259 + [float(len(piece)) for piece in pieces] + [-1e4] * num_more
    return {
        "tokenizer.ggml.model": (STRING, "llama"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, tokens)),
        "tokenizer.ggml.scores": (ARRAY, (FLOAT32, scores)),
        "tokenizer.ggml.token_type": (ARRAY, (INT32, kinds)),
        "tokenizer.ggml.bos_token_id": (UINT32, 1),
        "tokenizer.ggml.eos_token_id": (UINT32, 2),
        "tokenizer.ggml.unknown_token_id": (UINT32, 0),
    }


def values_of(**fields: Any) -> dict[str, Value]:
    """A tiny Llama's keys; `fields` of the architecture override."""
    sizes = {
        "context_length": 256,
        "embedding_length": 32,
        "block_count": 2,
        "feed_forward_length": 52,
        "attention__head_count": 4,
        "attention__head_count_kv": 2,
        "rope__dimension_count": 8,
        **fields,
    }
    return {
        "general.architecture": (STRING, "llama"),
        "general.name": (STRING, "tiny"),
        "general.license": (STRING, "mit"),
        **{f"llama.{k.replace('__', '.')}": (UINT32, v) for k, v in sizes.items()},
        "llama.attention.layer_norm_rms_epsilon": (FLOAT32, 1e-5),
        **vocabulary(),
    }


def tensors_of(seed: int = 7) -> dict[str, np.ndarray[Any, Any]]:
    """Random weights, far enough from zero for attention to matter."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray[Any, Any]:
        return rng.normal(0, 0.3, (rows, columns)).astype(np.float32)

    found = {"token_embd.weight": matrix(VOCAB_SIZE, 32), "output.weight": matrix(VOCAB_SIZE, 32)}
    found["output_norm.weight"] = np.ones(32, np.float32)
    for n in range(2):
        for name, shape in {
            "attn_q": (32, 32),
            "attn_k": (16, 32),
            "attn_v": (16, 32),
            "attn_output": (32, 32),
            "ffn_gate": (52, 32),
            "ffn_up": (52, 32),
            "ffn_down": (32, 52),
        }.items():
            found[f"blk.{n}.{name}.weight"] = matrix(*shape)
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{n}.{name}.weight"] = np.ones(32, np.float32)
    return found


def make_gguf(folder: Path, name: str = "tiny.gguf", *, template: bool = True) -> Path:
    """A file that llama.cpp loads."""
    values = values_of()
    if template:
        values["tokenizer.chat_template"] = (STRING, TEMPLATE)
    path = folder / name
    path.write_bytes(gguf_bytes(values, tensors_of()))
    return path
