"""How each family of models is asked what it sees, in Transformers' own modules.

Some give more than vectors for the tokens of an image: what earlier layers of the tower saw is
added to what the first layers of the language model make of those tokens (DeepStack, Meng et al.
2024).

Legend: S what is seen (first for the tokens themselves, then for each such layer), N tokens of an
image, T tokens, H hidden units.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from llmos.weights.seeing import SEEING, Family

DEEP = "llmos_deep"
"""Of a forward: what early layers add, as `deep_of` makes it."""

_DEEP = "deepstack_features"
"""The same, as what looking gives has it."""

_TOWERS = {Family.FIXED: "vision_tower", Family.TILED: "visual", Family.SPLIT: "vision_model"}


class Vision:
    """Of a model that sees."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._family = SEEING[model.config.architectures[0]]
        if getattr(model.config.vision_config, "deepstack_visual_indexes", None):
            model.model.language_model.register_forward_pre_hook(_go_deep, with_kwargs=True)

    def blocks(self) -> Iterator[torch.nn.Module]:
        """Of the tower."""
        for modules in getattr(self._model.model, _TOWERS[self._family]).modules():
            yield from modules if isinstance(modules, torch.nn.ModuleList) else ()

    def see(self, pixels: torch.Tensor, grid_of_tokens: list[int]) -> torch.Tensor:
        """One image, or one part of one: SNH."""
        see = self._model.get_image_features
        if self._family is Family.TILED:
            merge = int(self._model.config.vision_config.spatial_merge_size)
            sides = [1, *(side * merge for side in grid_of_tokens)]
            out = see(pixels, torch.tensor([sides], device=pixels.device), return_dict=True)
        elif self._family is Family.SPLIT:
            out = see(pixels[None, None], return_dict=True)
        else:
            out = see(pixels[None], return_dict=True)
        (seen_NH,) = out.pooler_output
        return torch.stack([seen_NH, *(deep_NH for (deep_NH,) in getattr(out, _DEEP, ()))])


def deep_of(where: list[tuple[int, int]], seen: list[torch.Tensor], num_tokens: int) -> Any:
    """For `DEEP`, of a chunk whose tokens from `where` to `where` are what is seen of images; None
    where no layer adds anything."""
    if not seen or len(seen[0]) == 1:
        return None
    is_image_1T = torch.zeros(1, num_tokens, dtype=torch.bool, device=seen[0].device)
    for first, last in where:
        is_image_1T[0, first:last] = True
    return is_image_1T, list(torch.cat(seen, dim=1)[1:])


def _go_deep(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Put into the language model's hands what the model around it takes from nobody."""
    deep = kwargs.pop(DEEP, None)
    if deep is not None:
        kwargs["visual_pos_masks"], kwargs["deepstack_visual_embeds"] = deep
    return args, kwargs
