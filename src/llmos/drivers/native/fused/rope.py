"""Angles of rotary positions, as Transformers computes them for a config."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np

from llmos.drivers.native.fused.spec import Rope, RopeStyle, Unsupported


@dataclasses.dataclass(frozen=True, slots=True)
class RopeTables:
    """`flat` for all layers, or one of `by_type` per type of layer.

    They hold for sequences of up to `max_length` tokens; None: of any length.
    """

    flat: Rope | None
    by_type: dict[str, Rope]
    max_length: int | None

    def of(self, layer_type: str | None) -> Rope:
        """Raises Unsupported for a type that has none."""
        rope = self.flat or self.by_type.get(layer_type or "")
        if rope is None:
            raise Unsupported(f"rope_parameters say nothing of layers of type {layer_type}")
        return rope


def read_rope(
    config: Any, head_dim: int, style: RopeStyle, *, partial: bool, backwards: bool = False
) -> RopeTables:
    """The tables of the architecture's own rotary module. `backwards`: it turns the other way."""
    module = _rotary_module(config)
    kinds = module.rope_type
    names = list(kinds) if isinstance(kinds, dict) else [""]
    ropes, lengths = {}, []
    for name in names:
        before = f"{name}_" if name else ""
        inv_freq = getattr(module, f"{before}inv_freq").float().cpu().numpy()
        parameters = config.rope_parameters[name] if name else config.rope_parameters
        rotary_dim = 2 * len(inv_freq)
        said = int(head_dim * (parameters.get("partial_rotary_factor", 1.0) if partial else 1.0))
        if rotary_dim != said or rotary_dim > head_dim:
            raise Unsupported(f"positions turn {rotary_dim} of {said} elements of a head")
        factor = float(getattr(module, f"{before}attention_scaling"))
        turned = np.ascontiguousarray(-inv_freq if backwards else inv_freq, np.float32)
        ropes[name] = Rope(turned, rotary_dim, style, factor)
        lengths.append(_max_length(kinds[name] if name else kinds, parameters, config))
    bounds = [length for length in lengths if length is not None]
    return RopeTables(ropes.get(""), ropes, min(bounds, default=None))


def _rotary_module(config: Any) -> Any:
    import transformers

    architecture = config.architectures[0]
    module = sys.modules[getattr(transformers, architecture).__module__]
    make = getattr(module, architecture.removesuffix("ForCausalLM") + "RotaryEmbedding")
    try:
        return make(config)
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise Unsupported(f"rope_parameters: {type(error).__name__}: {error}"[:300]) from error


def _max_length(kind: str, parameters: dict[str, Any], config: Any) -> int | None:
    """From where on the angles follow the length of the longest sequence."""
    if "dynamic" in kind:
        return int(config.max_position_embeddings)
    if kind == "longrope":
        return int(parameters["original_max_position_embeddings"])
    return None
