"""The loss of the next token is the model's own, and so are its gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from llmos.programs.train import nexttoken
from llmos.programs.train.objectives.language import _own_loss
from llmos.programs.train.recipe import parse

SIZES: dict[str, Any] = {"vocab_size": 60, "bos_token_id": 0, "eos_token_id": 0}
CONFIGS: dict[str, Any] = {
    "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=16, **SIZES),
    "llama": LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
        **SIZES,
    ),
}


def made(family: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[family])).eval()


def recipe(**fields: Any) -> Any:
    return parse({"name": "x", "objective": "causal"} | fields)


@pytest.mark.parametrize("at_once", [1 << 20, 60 * 7, 1])
@pytest.mark.parametrize("family", CONFIGS)
def test_it_is_the_models_own(family: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nexttoken, "AT_ONCE", at_once)
    model = made(family)
    ids = torch.randint(0, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids, "labels": ids}
    ours, theirs = nexttoken.loss(model, batch), model(**batch).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    (0.5 * ours).backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    (0.5 * theirs).backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-7, rtol=1e-4)
    with torch.inference_mode():
        assert nexttoken.loss(model, batch).item() == pytest.approx(theirs.item(), rel=1e-6)


def test_where_it_is_not_known_to_be_the_models_own_it_is_left_to_the_model() -> None:
    model = made("gpt2")
    assert nexttoken.suits(recipe(), model)
    assert not nexttoken.suits(recipe(objective="masked"), model)
    for training in (
        {"precision": "bfloat16"},
        {"label_smoothing": 0.1},
        {"gradient_checkpointing": True},
    ):
        assert not nexttoken.suits(recipe(training=training), model)
    assert not nexttoken.suits(recipe(base="b", method="lora"), model)
    model.config.model_type = "gemma"
    assert not nexttoken.suits(recipe(), model)


def test_several_processes_learn_by_the_whole_model() -> None:
    model = made("gpt2")
    assert _own_loss(recipe(), model) is nexttoken.loss
    assert _own_loss(recipe(training={"processes": 2}), model) is None
