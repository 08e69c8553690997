"""A base's tensors with what an adapter adds to them, by PEFT's own arithmetic, operation by
operation: so the bits are those of a model that PEFT has merged.

LoRA: Hu et al., 2021. DoRA: Liu et al., 2024. AdaLoRA: Zhang et al., 2023. IA3: Liu et al., 2022.

Legend: O rows of a layer, I columns, R rank. Layers of GPT-2 lie turned round, IO.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from llmos.weights.adapterconfig import alpha_of
from llmos.weights.jsonfile import Fields

Parts = Mapping[str, torch.Tensor]


def merged_weight(kind: str, config: Fields, weight: torch.Tensor, parts: Parts) -> torch.Tensor:
    """A layer's matrix, float32, with its adapter in it."""
    return _MERGES[kind](config, weight, parts)


def merged_bias(bias: torch.Tensor, parts: Parts) -> torch.Tensor:
    """A layer's bias: only IA3 has a say in it, where it scales what comes out of a layer."""
    scale = parts.get("ia3_l")
    if scale is None or scale.shape[0] == 1:
        return bias
    return torch.mul(bias, scale.reshape(bias.shape))


def _lora(config: Fields, weight: torch.Tensor, parts: Parts) -> torch.Tensor:
    a_RI, b_OR = parts["lora_A"], parts["lora_B"]
    scale = alpha_of(config) / (_root(len(a_RI)) if config.flag("use_rslora") else len(a_RI))
    product = b_OR @ a_RI
    is_turned = _is_turned(config, weight, product)
    delta = _turn(product, is_turned) * scale
    magnitude = parts.get("lora_magnitude_vector")
    if magnitude is None:
        return weight + delta
    norm = torch.linalg.norm(_turn(weight, is_turned) + 1 * _turn(delta, is_turned), dim=1)
    factor = _turn((magnitude.reshape(-1) / norm).view(-1, 1), is_turned)
    return factor * (weight + delta)


def _adalora(config: Fields, weight: torch.Tensor, parts: Parts) -> torch.Tensor:
    a_RI, b_OR, e_R1 = parts["lora_A"], parts["lora_B"], parts["lora_E"]
    rank = len(a_RI)
    product = b_OR @ (a_RI * e_R1.reshape(rank, 1))
    alpha = alpha_of(config)
    scale = alpha if alpha > 0 else float(rank)
    turned = _turn(product, _is_turned(config, weight, product))
    return weight + turned * scale / (torch.tensor(float(rank)) + 1e-5)


def _ia3(config: Fields, weight: torch.Tensor, parts: Parts) -> torch.Tensor:
    scale = parts["ia3_l"]
    # a row for what goes in, a column for what comes out; of a layer that is turned, the other way
    width = weight.shape[0] if scale.shape[0] != 1 else weight.shape[1]
    square = weight.shape[0] == weight.shape[1]
    is_turned = config.flag("fan_in_fan_out") if square else scale.numel() != width
    return torch.mul(weight, _turn(scale, is_turned))


def _root(rank: int) -> float:
    return float(rank**0.5)


def _is_turned(config: Fields, weight: torch.Tensor, product: torch.Tensor) -> bool:
    if weight.shape[0] != weight.shape[1]:
        return weight.shape != product.shape
    return config.flag("fan_in_fan_out")


def _turn(matrix: torch.Tensor, is_turned: bool) -> torch.Tensor:
    return matrix.T if is_turned else matrix


_MERGES: dict[str, Callable[[Fields, torch.Tensor, Parts], torch.Tensor]] = {
    "LORA": _lora,
    "ADALORA": _adalora,
    "IA3": _ia3,
}
