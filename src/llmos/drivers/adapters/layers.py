"""What an adapter adds to a loaded model as modules of its own.

Legend: B rows, L tokens, H hidden units (of keys and values, heads), V virtual tokens, D head size.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import DynamicCache

from llmos.drivers.adapters.folder import Adapted
from llmos.errors import ModelRejected


class Bottleneck(nn.Module):
    """A layer, and two small ones after it, as `method: bottleneck` learns them (Houlsby et al.,
    2019)."""

    def __init__(self, layer: nn.Module, parts: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.layer = layer
        rank, width = parts["bottleneck_down.weight"].shape
        self.down, self.up = nn.Linear(width, rank), nn.Linear(rank, width)
        for name, module in (("down", self.down), ("up", self.up)):
            module.weight = nn.Parameter(parts[f"bottleneck_{name}.weight"])
            module.bias = nn.Parameter(parts[f"bottleneck_{name}.bias"])

    def forward(self, x_BLH: torch.Tensor) -> torch.Tensor:
        """Of the layer's shape."""
        out_BLH = self.layer(x_BLH)
        added_BLH: torch.Tensor = self.up(functional.gelu(self.down(out_BLH)))
        return out_BLH + added_BLH  # type: ignore[no-any-return]


class Vectors(nn.Module):
    """An embedding that has virtual tokens after its own: ids from `first` on are theirs. Only what
    is looked up changes; the matrix stays that of the base, and of a head that is tied to it."""

    def __init__(self, table: nn.Module, prompt_VH: torch.Tensor, first: int) -> None:
        super().__init__()
        self.table = table
        self.first = first
        self.prompt_VH = nn.Parameter(prompt_VH)

    @property
    def weight(self) -> Any:
        """The base's."""
        return self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Of any shape, H more."""
        is_virtual = ids >= self.first
        found: torch.Tensor = self.table(ids.masked_fill(is_virtual, 0))
        rows = self.prompt_VH[(ids - self.first).clamp(min=0)]
        return torch.where(is_virtual[..., None], rows.to(found.dtype), found)


def add_bottlenecks(model: nn.Module, adapted: Adapted) -> None:
    """After the layers they were learned after."""
    like = next(model.parameters())
    for path in adapted.edits.parts:
        parent, _, last = path.rpartition(".")
        parts = {name: part.to(like) for name, part in adapted.parts(path).items()}
        setattr(model.get_submodule(parent), last, Bottleneck(model.get_submodule(path), parts))
    model.requires_grad_(False)


def add_vectors(model: Any, adapted: Adapted) -> int:
    """The first id of a virtual token: none of the vocabulary's."""
    table = model.get_input_embeddings()
    first = int(table.weight.shape[0])
    like = table.weight
    model.set_input_embeddings(Vectors(table, adapted.prompt().to(like), first))
    model.requires_grad_(False)
    return first


def add_prefix(model: Any, adapted: Adapted) -> None:
    """Keys and values in front of every row, on each way into the layers below a head.

    Raises ModelRejected for a model that takes none.
    """
    inner = getattr(model, model.base_model_prefix, model)
    if "past_key_values" not in inspect.signature(inner.forward).parameters:
        raise ModelRejected(f"{type(model).__name__} takes no prefix")
    pairs = prefix_pairs(adapted, inner.config, next(model.parameters()))

    def begin(module: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        rows = len(given["input_ids"] if given.get("input_ids") is not None else args[0])
        grown = [(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in pairs]
        return args, given | {"past_key_values": DynamicCache(grown)}

    inner.register_forward_pre_hook(begin, with_kwargs=True)


def prefix_pairs(
    adapted: Adapted, config: Any, like: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each layer, 1HVD, as PEFT lays them out: of a token, keys and values in turns."""
    text = config.get_text_config(decoder=True)
    num_layers = text.num_hidden_layers
    num_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    rows_VLHD = adapted.prompt().view(adapted.num_virtual, 2 * num_layers, num_heads, -1)
    by_layer = rows_VLHD.permute(1, 2, 0, 3)[:, None].to(like).contiguous()
    return [(by_layer[i], by_layer[i + 1]) for i in range(0, 2 * num_layers, 2)]
