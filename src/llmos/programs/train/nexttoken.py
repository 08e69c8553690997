"""The loss of the next token, without all its logits at once: a few rows of them, which stay in the
processor's cache, become gradients where they are (after Liger's fused linear cross entropy, Hsu et
al., 2024). The same sums as a model's own, in less memory and fewer passes over it.
"""
# ruff: noqa: N803, N806 - names end in shapes: Batch, Length, Hidden, Vocabulary, Number of tokens

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from llmos.programs.train.examples import Batch
from llmos.programs.train.recipe import Method, Objective, Recipe

FAMILIES = frozenset({"gpt2", "llama"})
"""Of which it is known that logits are the last hidden state times `lm_head`, and no more."""

AT_ONCE = 1 << 20
"""Logits, about."""


def suits(recipe: Recipe, model: Any) -> bool:
    """Whether `loss` is that of the model: all weights learned, in float32."""
    is_plain = recipe.method is Method.FULL and recipe.training.precision == "float32"
    return (
        is_plain
        and recipe.objective is Objective.CAUSAL
        and recipe.training.label_smoothing == 0
        and not recipe.training.gradient_checkpointing
        and model.config.model_type in FAMILIES
        and getattr(model.lm_head, "bias", None) is None
    )


def loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean over all tokens but the first of each row: blocks without padding."""
    inputs_BL = batch["input_ids"]
    hidden_BLH = model.base_model(input_ids=inputs_BL, use_cache=False).last_hidden_state
    hidden_NH = hidden_BLH[:, :-1].flatten(0, 1)
    targets_N = batch["labels"][:, 1:].flatten()
    weight_VH = model.lm_head.weight
    if not torch.is_grad_enabled():
        return F.cross_entropy(F.linear(hidden_NH, weight_VH), targets_N)
    apply: Any = _NextToken.apply
    made: torch.Tensor = apply(hidden_NH, weight_VH, targets_N)
    return made


class _NextToken(torch.autograd.Function):
    """Gradients are made on the way forward, while their logits are there."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets_N: torch.Tensor
    ) -> torch.Tensor:
        number, size = len(targets_N), len(weight_VH)
        by_hidden_NH = torch.empty_like(hidden_NH)
        by_weight_VH = torch.zeros_like(weight_VH)
        total = hidden_NH.new_zeros(())
        step = max(1, AT_ONCE // size)
        for at in range(0, number, step):
            part = slice(at, at + step)
            hidden_PH, targets_P1 = hidden_NH[part], targets_N[part, None]
            logits_PV = hidden_PH @ weight_VH.T
            sums_P1 = logits_PV.logsumexp(1, keepdim=True)
            total += (sums_P1 - logits_PV.gather(1, targets_P1)).sum()
            wrong_PV = logits_PV.sub_(sums_P1).exp_()  # probabilities, less what is right
            wrong_PV.scatter_add_(1, targets_P1, wrong_PV.new_full((len(targets_P1), 1), -1.0))
            torch.mm(wrong_PV, weight_VH, out=by_hidden_NH[part])
            by_weight_VH.addmm_(wrong_PV.T, hidden_PH)
        ctx.save_for_backward(by_hidden_NH.div_(number), by_weight_VH.div_(number))
        return total / number

    @staticmethod
    def backward(ctx: Any, *by_loss: Any) -> tuple[torch.Tensor, torch.Tensor, None]:
        by_hidden_NH, by_weight_VH = ctx.saved_tensors
        return by_hidden_NH * by_loss[0], by_weight_VH * by_loss[0], None
