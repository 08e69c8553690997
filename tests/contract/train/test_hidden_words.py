"""The loss of words that were hidden is the model's own, and there is always one to tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
)

from llmos.programs.train.objectives.language import IGNORED, _Masked, _own_loss, _told_loss
from llmos.programs.train.recipe import parse

TOKENIZER: Any = type(
    "Tokenizer",
    (SimpleNamespace,),
    {"mask_token_id": 4, "cls_token_id": 2, "sep_token_id": 3, "__len__": lambda self: 50},
)()


def make(family: str) -> Any:
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"vocab_size": 50, "max_position_embeddings": 16}
    if family == "bert":
        return BertForMaskedLM(BertConfig(**sizes)).eval()
    return ModernBertForMaskedLM(ModernBertConfig(pad_token_id=0, **sizes)).eval()


def batch(share: float, num_rows: int = 4) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 50, 14) for _ in range(num_rows)]
    return _Masked(TOKENIZER, 16, share)(rows, rng)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_it_is_the_models_own(family: str) -> None:
    torch.manual_seed(0)
    model = make(family)
    given = batch(0.3)
    ours, theirs = _told_loss(model, given), model(**given).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    ours.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    theirs.backward()
    assert found.keys() == {n for n, p in model.named_parameters() if p.grad is not None}
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(found[name], weight.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("training", "is_ours"),
    [({}, True), ({"precision": "bfloat16"}, False), ({"label_smoothing": 0.1}, False)],
)
def test_what_the_trainer_would_add_is_left_to_it(training: dict[str, Any], is_ours: bool) -> None:
    model = SimpleNamespace(config=SimpleNamespace(model_type="bert"))
    recipe = parse({"name": "m", "objective": "masked", "training": training})
    assert (_own_loss(recipe, model) is _told_loss) is is_ours


def test_every_row_has_one_to_tell() -> None:
    told = (batch(1e-9)["labels"] != IGNORED).sum(1)
    assert told.tolist() == [1, 1, 1, 1]
