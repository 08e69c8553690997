"""Every architecture of the catalogue gives the logits of Transformers' own eager attention."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llmos.drivers.native.architectures import NATIVE_ARCHITECTURES, NATIVE_MIXTURES
from llmos.drivers.native.batch import Batch, DecodeMode
from llmos.drivers.native.load import load_model
from tests.unit.drivers.tiny import BASE, VOCAB_SIZE, make_model

WINDOW = {"sliding_window": 24}
MIXED = WINDOW | {"layer_types": ["sliding_attention", "full_attention"]}
SOME = WINDOW | {"use_sliding_window": True, "max_window_layers": 1}
GPT = {
    "vocab_size": VOCAB_SIZE,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
}
OPT = {key: BASE[key] for key in ("vocab_size", "hidden_size", "max_position_embeddings")}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
EXPERTS |= {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
MODELS: dict[str, dict[str, Any]] = {
    "apertus": {},
    "arcee": {},
    "cohere": {},
    "cohere2": MIXED,
    "ernie4_5": {},
    "exaone4": MIXED,
    "gemma": {},
    "gemma2": MIXED | {"query_pre_attn_scalar": 8},
    "gemma3_text": MIXED | {"query_pre_attn_scalar": 8},
    "glm": {},
    "glm4": {},
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gpt_neox": {},
    "granite": {},
    "granitemoe": EXPERTS,
    "helium": {},
    "hunyuan_v1_dense": {},
    "llama": {},
    "ministral": WINDOW,
    "ministral3": {},
    "mistral": WINDOW,
    "mixtral": WINDOW | EXPERTS,
    "nanochat": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": MIXED,
    "olmoe": EXPERTS,
    "opt": OPT | {"ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "persimmon": {},
    "phi": {},
    "phi3": WINDOW,
    "phimoe": EXPERTS,
    "qwen2": SOME,
    "qwen2_moe": EXPERTS,
    "qwen3": SOME,
    "qwen3_moe": EXPERTS,
    "seed_oss": {},
    "smollm3": SOME | {"layer_types": MIXED["layer_types"]},
    "starcoder2": WINDOW,
    "vaultgemma": MIXED | {"query_pre_attn_scalar": 8},
}
LENGTH, PROMPT, CHUNK = 100, 80, 64
tested: set[str] = set()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("model_type", MODELS)
def test_logits(tmp_path: Path, model_type: str) -> None:
    model = make_model(tmp_path, model_type, **MODELS[model_type])
    tested.add(model.config.architectures[0])
    ids = torch.randint(0, VOCAB_SIZE, (2, LENGTH), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = model(input_ids=ids, use_cache=False).logits
    loaded = load_model(tmp_path, dtype="float32", device="cpu", context_length=128)
    batch = Batch(loaded, num_slots=4)
    slots, tokens = [1, 2], ids.tolist()
    worst = 0.0
    for row, slot in enumerate(slots):
        for start in range(0, PROMPT, CHUNK):
            end = min(PROMPT, start + CHUNK)
            found = batch.prefill(slot, start, tokens[row][start:end])[0]
            worst = max(worst, (found - expected[row, end - 1]).abs().max().item())
    for at in range(PROMPT, LENGTH):
        mode = list(DecodeMode)[at % 3]
        found = batch.decode(slots, [row[at] for row in tokens], [at, at], mode)
        worst = max(worst, (found - expected[:, at]).abs().max().item())
    assert worst <= 1e-4 * expected.abs().max().item()


def test_every_architecture_was_compared() -> None:
    if len(tested) == len(MODELS):  # all of the above ran in this process
        assert tested == NATIVE_ARCHITECTURES | NATIVE_MIXTURES
