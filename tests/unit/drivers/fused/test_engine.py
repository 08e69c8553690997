"""The kernels over whole models: odd sizes, long sequences, other types, threads, snapshots."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import pytest
import torch

from llmos.drivers.native.fused.engine import Piece
from llmos.weights.quantizable import is_head, is_projection
from llmos.weights.quantization import dequantize, quantize
from tests.unit.drivers.fused.compare import described
from tests.unit.drivers.fused.engines import MOST_ROWS, logits, open_engine
from tests.unit.drivers.fused.models import VOCAB_SIZE, make, read_tensors
from tests.unit.drivers.fused.reference import Reference

LONG: dict[str, Any] = {"max_position_embeddings": 1024, "num_hidden_layers": 2}


def tokens(count: int, step: int = 7) -> list[int]:
    return [(step * i * i + 3 * i + 5) % VOCAB_SIZE for i in range(count)]


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found - expected).abs().amax(-1) / expected.abs().amax(-1)).max())


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("LlamaForCausalLM", {"hidden_size": 42, "head_dim": 8}),
        ("LlamaForCausalLM", {"hidden_size": 18, "head_dim": 80, "intermediate_size": 6}),
        ("LlamaForCausalLM", {"head_dim": 2, "num_key_value_heads": 6, "vocab_size": 205}),
        (
            "LlamaForCausalLM",
            {"hidden_size": 60, "num_attention_heads": 30, "num_key_value_heads": 1},
        ),
        ("Phi3ForCausalLM", {"hidden_size": 120, "sliding_window": None, "vocab_size": 206}),
        ("Gemma2ForCausalLM", {"hidden_size": 54, "head_dim": 18}),
        ("GPT2LMHeadModel", {"n_embd": 42, "n_inner": 31}),
    ],
)
def test_odd_sizes(architecture: str, fields: dict[str, Any], tmp_path: Path) -> None:
    model = make(architecture, tmp_path, **fields)
    read = tokens(40)
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([read]), use_cache=False).logits[0]
    engine = open_engine(architecture, tmp_path)
    found = logits(engine, read)
    assert worst(found, expected) <= 1e-4
    assert torch.equal(logits(engine, read, cuts=[5, 18, 19]), found)


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("LlamaForCausalLM", {}),
        ("MistralForCausalLM", {"sliding_window": 300}),
        ("MistralForCausalLM", {"sliding_window": 16}),
        ("MistralForCausalLM", {"sliding_window": 256}),
        ("Gemma2ForCausalLM", {"sliding_window": 270, "layer_types": None}),
    ],
)
def test_many_blocks_of_keys(architecture: str, fields: dict[str, Any], tmp_path: Path) -> None:
    """Windows that begin and end within them, and rows on both sides of their ends."""
    model = make(architecture, tmp_path, **(LONG | fields))
    read = tokens(700)
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([read]), use_cache=False).logits[0]
    engine = open_engine(architecture, tmp_path, length=704)
    found = logits(engine, read)
    assert worst(found, expected) <= 1e-4
    cuts = [3, 255, 256, 257, 258, 511, 513, *range(520, 600), 699]
    assert torch.equal(logits(engine, read, cuts=cuts), found)
    engine.close()
    engine = open_engine(architecture, tmp_path, length=704, num_threads=3)
    assert torch.equal(logits(engine, read, cuts=[300]), found)
    engine.close()


BOUNDS = {"bfloat16": 0.03, "float16": 0.003, "int8": 0.1, "int4": 0.1}
"""Of the logits' root mean square: what rounding of activations, keys and values may come to."""


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(
    "architecture", ["LlamaForCausalLM", "Gemma2ForCausalLM", "GPT2LMHeadModel", "Qwen3ForCausalLM"]
)
def test_other_types(architecture: str, dtype: str, tmp_path: Path) -> None:
    """Against the reference in float32, with the weights as they are rounded."""
    make(architecture, tmp_path)
    decoder, stored = described(architecture, tmp_path), read_tensors(tmp_path)
    read = tokens(40)
    expected = Reference(decoder, {n: rounded(n, t, dtype) for n, t in stored.items()}).logits(read)
    engine = open_engine(architecture, tmp_path, dtype)
    found = logits(engine, read)
    error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error <= BOUNDS[dtype]
    # what is rounded is the row's alone: equal bits however it is cut, and beside others
    assert torch.equal(logits(engine, read, cuts=[1, 7, 16, 30, 31]), found)
    table, other = array("i", [6, 5, 4]), array("i", [0, 1, 2])
    pieces = [Piece(other, 0, tokens(23, 11), 0), Piece(table, 0, read, len(read))]
    assert torch.equal(engine.forward(pieces), found)
    engine.close()


def rounded(name: str, tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    """A weight as an engine of that type reads it. GPT-2 stores its matrices the other way up."""
    if dtype in {"bfloat16", "float16"}:
        return tensor.to(getattr(torch, dtype)).float() if tensor.dim() == 2 else tensor
    if tensor.dim() != 2 or not (is_projection(name) or is_head(name)):
        return tensor
    turned = name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
    rows = tensor.T.contiguous() if turned else tensor
    bits = 8 if is_head(name) else int(dtype[3:])
    made = torch.from_numpy(dequantize(quantize(rows.numpy(), bits)))
    return made.T.contiguous() if turned else made


def test_pages_are_copied_bit_by_bit(tmp_path: Path) -> None:
    make("LlamaForCausalLM", tmp_path)
    engine = open_engine("LlamaForCausalLM", tmp_path)
    read = tokens(40)
    found = logits(engine, read)
    copy = engine.read_pages(list(range(engine.num_pages - 1, engine.num_pages - 4, -1)))
    assert [page.shape for page in copy] == [page.shape for page in engine.empty_pages(3)]
    assert sum(page.nbytes for page in copy) == 3 * engine.page_bytes
    engine.write_pages([1, 4, 0], copy)
    moved = Piece(array("i", [1, 4, 0]), 39, read[39:], 1)
    assert torch.equal(engine.forward([moved])[0], found[39])
    engine.close()
    engine.close()


def test_steps_of_every_width(tmp_path: Path) -> None:
    """One sequence beside up to 63 others, each with one token."""
    make("LlamaForCausalLM", tmp_path)
    engine = open_engine("LlamaForCausalLM", tmp_path, length=16 * 70, num_threads=2)
    read = tokens(10)
    for seq in range(MOST_ROWS):
        engine.forward([Piece(array("i", [seq]), 0, tokens(9, 5 + seq % 11), 0)])
    engine.forward([Piece(array("i", [65]), 0, read[:9], 0)])
    mine = Piece(array("i", [65]), 9, read[9:], 1)
    alone = engine.forward([mine]).clone()
    for width in range(1, MOST_ROWS):
        others = [Piece(array("i", [seq]), 9, [seq], 1) for seq in range(width)]
        at = width // 2
        found = engine.forward([*others[:at], mine, *others[at:]])
        assert torch.equal(found[at], alone[0])
    engine.close()
