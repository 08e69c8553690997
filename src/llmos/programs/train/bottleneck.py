"""Two small layers after the inner part of every block (Houlsby et al., 2019): PEFT has none."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from llmos.errors import InvalidRequest

PLACES = ("output.dense", "mlp.down_proj", "mlp.c_proj", "wo", "fc2")
"""The last layer of a block's inner part, as families call it."""


class Bottleneck(nn.Module):
    """`layer`, frozen, and what is learned about its output. At first it changes nothing."""

    def __init__(self, layer: nn.Module, width: int, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x_BLH: torch.Tensor) -> torch.Tensor:  # noqa: N803 - Batch, Length, Hidden
        """Of the layer's shape."""
        out_BLH = self.layer(x_BLH)  # noqa: N806
        added_BLH: torch.Tensor = self.up(torch.nn.functional.gelu(self.down(out_BLH)))  # noqa: N806
        return out_BLH + added_BLH  # type: ignore[no-any-return]


def add_bottlenecks(model: Any, rank: int) -> int:
    """After every layer of `PLACES`; all else is frozen. How many there are. Raises
    InvalidRequest for a model that has no such layers."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found = [
        (name, layer)
        for name, layer in model.named_modules()
        if name.endswith(PLACES) and hasattr(layer, "weight") and layer.weight.dim() == 2
    ]
    if not found:
        raise InvalidRequest(
            "method bottleneck: the model has no layers that are known", param="recipe.method"
        )
    for name, layer in found:
        parent, _, last = name.rpartition(".")
        width = layer.weight.shape[0] if isinstance(layer, nn.Linear) else layer.weight.shape[1]
        setattr(model.get_submodule(parent), last, Bottleneck(layer, width, rank))
    return len(found)
