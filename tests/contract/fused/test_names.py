"""Which stored tensor is which: heads that are tied, names that files leave out or change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from llmos.drivers.native.fused.describe import describe
from tests.contract.fused.compare import described, worst_of
from tests.contract.fused.models import make, read_config, read_shapes

Tensors = dict[str, torch.Tensor]


def _rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    save_file({n: t.clone() for n, t in tensors.items()}, path, {"format": "pt"})


def _loaded(architecture: str, folder: Path) -> Any:
    cls: Any = getattr(transformers, architecture)
    return cls.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def _renamed(before: str, after: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {
        after + name.removeprefix(before) if name.startswith(before) else name: tensor
        for name, tensor in tensors.items()
    }


def test_a_tied_head_is_the_embedding(tmp_path: Path) -> None:
    make("Qwen2ForCausalLM", tmp_path, tie_word_embeddings=True)
    decoder = described("Qwen2ForCausalLM", tmp_path)
    assert decoder.tied
    assert decoder.head.matrix is decoder.embed
    make("Qwen2ForCausalLM", tmp_path)
    decoder = described("Qwen2ForCausalLM", tmp_path)
    assert not decoder.tied
    assert decoder.head.matrix.name == "lm_head.weight"


def test_tied_by_the_config_but_stored_twice(tmp_path: Path) -> None:
    """Transformers does not tie what differs; each is what its file says."""
    make("LlamaForCausalLM", tmp_path, tie_word_embeddings=True)
    _rewrite(tmp_path, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].flip(0)})
    assert not described("LlamaForCausalLM", tmp_path).tied
    model = _loaded("LlamaForCausalLM", tmp_path)
    assert worst_of(model, "LlamaForCausalLM", tmp_path) <= 1e-5


def test_tied_and_stored_as_the_head(tmp_path: Path) -> None:
    make("LlamaForCausalLM", tmp_path, tie_word_embeddings=True)
    _rewrite(tmp_path, _renamed("model.embed_tokens", "lm_head"))
    decoder = described("LlamaForCausalLM", tmp_path)
    assert decoder.tied
    assert decoder.embed.name == "lm_head.weight"
    model = _loaded("LlamaForCausalLM", tmp_path)
    assert worst_of(model, "LlamaForCausalLM", tmp_path) <= 1e-5


@pytest.mark.parametrize(
    ("architecture", "before", "after"),
    [
        ("GPT2LMHeadModel", "transformer.", ""),
        ("OPTForCausalLM", "model.", ""),
        ("LlamaForCausalLM", "model.", ""),
        ("GPTNeoXForCausalLM", "embed_out.", "lm_head."),
    ],
)
def test_names_that_files_change(
    architecture: str, before: str, after: str, tmp_path: Path
) -> None:
    make(architecture, tmp_path)
    _rewrite(tmp_path, _renamed(before, after))
    assert worst_of(_loaded(architecture, tmp_path), architecture, tmp_path) <= 1e-5


def test_parts_of_fused_tensors(tmp_path: Path) -> None:
    make("Phi3ForCausalLM", tmp_path)
    layer = described("Phi3ForCausalLM", tmp_path).layers[0]
    assert layer.gate is not None
    parts = [layer.q, layer.k, layer.v, layer.gate, layer.up]
    spans = [(part.matrix.start, part.matrix.stop) for part in parts]
    assert spans == [(0, 48), (48, 64), (64, 80), (0, 77), (77, 154)]
    make("GPTNeoXForCausalLM", tmp_path / "neox")
    layer = described("GPTNeoXForCausalLM", tmp_path / "neox").layers[0]
    assert layer.k.matrix.rows is not None
    assert layer.k.matrix.rows[:10].tolist() == [8, 9, 10, 11, 12, 13, 14, 15, 32, 33]
    assert layer.k.bias is not None
    assert layer.k.bias.rows is layer.k.matrix.rows


def test_what_is_the_same_is_one_object(tmp_path: Path) -> None:
    """The engine makes one table of angles, and normalises a parallel layer once."""
    make("Gemma3ForCausalLM", tmp_path)
    local, full, again = (x.rope for x in described("Gemma3ForCausalLM", tmp_path).layers)
    assert local is again
    assert local is not full
    make("PhiForCausalLM", tmp_path / "phi")
    layer = described("PhiForCausalLM", tmp_path / "phi").layers[1]
    assert layer.pre_attn is layer.pre_mlp


def test_describing_needs_no_values(tmp_path: Path) -> None:
    make("LlamaForCausalLM", tmp_path)
    config, shapes = read_config("LlamaForCausalLM", tmp_path), read_shapes(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert len(describe(config, shapes).layers) == 3
