"""How a decoder is told where in its text each newest token stands, where places are not alike.

Transformers counts columns, the same for every place. A model whose attention sees distances alone
needs nothing else; one that takes `position_ids` is given them; where a model looks positions up
for itself, the module that it asks is asked once for each position.

Shapes: B places, H hidden units.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from llmos.drivers.encoder.kinds import Head
from llmos.drivers.encoder.load import Loaded


class Positions:
    """Of one loaded model. `can_differ`: places of one step may stand at different positions."""

    def __init__(self, loaded: Loaded) -> None:
        model, head = loaded.model, loaded.purpose.head
        self._argument = ""
        self._placed: list[Placed] = []
        if head is Head.CAPTIONER:
            self._argument = "position_ids"
        elif head is Head.IMAGE_DECODER and _takes(model.decoder, "position_ids"):
            self._argument = "decoder_position_ids"
        else:
            within = model.decoder if head is Head.IMAGE_DECODER else model.get_decoder()
            self._placed = _place(within)
        is_relative = hasattr(loaded.config, "relative_attention_num_buckets")
        self.can_differ = bool(self._argument or self._placed or is_relative)

    def tell(self, at: Sequence[int] | None, device: torch.device) -> dict[str, Any]:
        """Before each step: more arguments for it. `at` None: all stand where there are so many
        columns."""
        for placed in self._placed:
            placed.at = at
        if at is None or not self._argument:
            return {}
        return {self._argument: torch.tensor(at, device=device)[:, None]}


class Placed(torch.nn.Module):
    """In front of a module that makes vectors of positions, of which it counts alike for all."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.at: Sequence[int] | None = None
        self._signature = inspect.signature(inner.forward)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As `inner`; a step of one token where places are not alike."""
        if self.at is None:
            return self.inner(*args, **kwargs)
        given = self._signature.bind(*args, **kwargs).arguments
        given.pop("position_ids", None)
        made: list[Any] = [None] * len(self.at)
        for position in set(self.at):
            places = [i for i, at in enumerate(self.at) if at == position]
            of_these = {name: self._some(value, places) for name, value in given.items()}
            out = self.inner(**of_these | {"past_key_values_length": position})
            vectors_BH = out.reshape(-1, out.shape[-1]).expand(len(places), -1)
            for place, vector_H in zip(places, vectors_BH, strict=True):
                made[place] = vector_H
        return torch.stack(made)[:, None]

    def _some(self, value: Any, places: list[int]) -> Any:
        if isinstance(value, torch.Tensor) and len(value) == len(self.at or ()):
            return value[places]
        return (len(places), *value[1:]) if isinstance(value, tuple) else value


def _takes(module: torch.nn.Module, name: str) -> bool:
    return name in inspect.signature(module.forward).parameters


def _place(decoder: torch.nn.Module) -> list[Placed]:
    found = []
    for module in [*decoder.modules()]:
        inner = getattr(module, "embed_positions", None)
        if isinstance(inner, torch.nn.Module) and _takes(inner, "past_key_values_length"):
            module.embed_positions = Placed(inner)
            found.append(module.embed_positions)
    return found
