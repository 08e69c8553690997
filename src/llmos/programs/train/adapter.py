"""What was learned beside a base, as files of its own: an adapter, which names its base.

All that the base's files do not hold is in it: what PEFT added, heads, and layers that are new
with the task although nobody learned them. So base and adapter together are the whole model, bit
for bit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from llmos.errors import InvalidRequest, ModelRejected
from llmos.programs.train.bottleneck import Bottleneck
from llmos.programs.train.recipe import Method, Recipe
from llmos.weights.adapters import BOTTLENECK, CLAIM, CONFIG, FOLDER, HEAD, WEIGHTS, Claim
from llmos.weights.digest import file_digest
from llmos.weights.folder import INDEX, SINGLE, list_files, read_weights

_OURS = {Method.BOTTLENECK: BOTTLENECK, Method.HEAD: HEAD}
_PROMPTS = (Method.PREFIX, Method.PROMPT, Method.P_TUNING)
_ADDED = re.compile(r"\.(lora_|ia3_)|(^|\.)(original_module|modules_to_save)\.")
MOST_NEW = 0.5
"""Share of a base's weights that may be new with it. Where more are, its files have other names for
what the model has, and an adapter would hold the base once more."""


def save_adapter(recipe: Recipe, model: Any, base: Path, folder: Path) -> None:
    """The model's configuration, and `adapter/` with what is not its base's."""
    inner = _inner(model)
    _save_config(inner, folder)
    into = folder / FOLDER
    into.mkdir()
    shapes = _shapes(base)
    from safetensors.torch import save_file

    tensors = _learned(recipe, model) | _new(recipe, inner, shapes)
    save_file(
        {name: t.detach().float().contiguous() for name, t in tensors.items()}, into / WEIGHTS
    )
    _write_config(recipe, model, into / CONFIG)
    files, _ = read_weights(base, list_files(base))
    names = [*files, *([INDEX] if files != [SINGLE] else [])]
    lacks, extra = _prefixes(inner, shapes)
    method = str(recipe.method)
    claim = Claim(
        recipe.base, {name: file_digest(base / name) for name in names}, lacks, extra, method
    )
    (into / CLAIM).write_bytes(msgspec.json.format(msgspec.json.encode(claim), indent=2))


def check_separable(recipe: Recipe, model: Any, base: Path) -> None:
    """Before anything is learned. Raises InvalidRequest for a model that would be in its own
    adapter."""
    inner = _inner(model)
    try:
        shapes = _shapes(base)
    except ModelRejected as error:
        raise InvalidRequest(f"{recipe.base}: {error.message}", param="recipe.base") from None
    new = sum(t.numel() for t in _new(recipe, inner, shapes).values())
    if new > MOST_NEW * sum(p.numel() for p in inner.parameters()):
        raise InvalidRequest(
            f"recipe: register: the files of {recipe.base} have other names for most of what the "
            "model has: only a whole model can be made of it (register: merged)",
            param="recipe.register",
        )


def _inner(model: Any) -> Any:
    """Without what PEFT wraps it in."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _shapes(base: Path) -> dict[str, tuple[int, ...]]:
    """Of the base's tensors, by their names in its files."""
    _, tensors = read_weights(base, list_files(base))
    return {tensor.name: tensor.shape for tensor in tensors}


def _prefixes(inner: Any, shapes: dict[str, tuple[int, ...]]) -> tuple[str, str]:
    """What names in the files lack, and what they have too much: a model may be stored with or
    without its head, and be loaded the other way."""
    prefix = f"{inner.base_model_prefix}."
    if prefix == ".":
        return "", ""
    in_model = any(name.startswith(prefix) for name, _ in inner.named_parameters())
    in_files = any(name.startswith(prefix) for name in shapes)
    if in_model == in_files:
        return "", ""
    return (prefix, "") if in_model else ("", prefix)


def _learned(recipe: Recipe, model: Any) -> dict[str, torch.Tensor]:
    """What the method added, by PEFT's names."""
    if recipe.method is Method.BOTTLENECK:
        return {
            f"base_model.model.{path}.bottleneck_{part}": parameter
            for path, module in model.named_modules()
            if isinstance(module, Bottleneck)
            for part, parameter in module.named_parameters()
            if not part.startswith("layer.")
        }
    if recipe.method is Method.HEAD:
        return {}
    from peft import get_peft_model_state_dict

    config = model.peft_config[model.active_adapter]
    pattern, kept = getattr(config, "rank_pattern", None), hasattr(config, "rank_pattern")
    if kept and recipe.method is Method.ADALORA:
        config.rank_pattern = None  # else directions that were given up are cut off, with the scale
    try:
        found: dict[str, torch.Tensor] = get_peft_model_state_dict(model)
    finally:
        if kept:
            config.rank_pattern = pattern
    return found


def _new(recipe: Recipe, inner: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Tensors of the model that its base has not, or that were learned themselves."""
    lacks, extra = _prefixes(inner, shapes)
    put = "base_model." if recipe.method in _PROMPTS else "base_model.model."
    own = recipe.method in _OURS
    found: dict[str, torch.Tensor] = {}
    for names, tensor in _tensors(inner):
        homes = [shapes.get(extra + name.removeprefix(lacks)) for name in names]
        packed = hasattr(tensor, "quant_state")
        fits = [home == tensor.shape or (packed and home is not None) for home in homes]
        if (own and tensor.requires_grad) or not any(fits):
            found[put + names[0]] = _unpacked(tensor) if packed else tensor
    return found


def _tensors(inner: nn.Module) -> Iterator[tuple[list[str], torch.Tensor]]:
    """All that the base could hold, with every name of it."""
    bottlenecks = [f"{n}." for n, module in inner.named_modules() if isinstance(module, Bottleneck)]
    kept = inner.state_dict(keep_vars=True)
    found: dict[int, tuple[list[str], torch.Tensor]] = {}
    for name, tensor in [*inner.named_parameters(remove_duplicate=False), *inner.named_buffers()]:
        if name not in kept or _ADDED.search(name):
            continue
        path, within = name, next((one for one in bottlenecks if name.startswith(one)), None)
        if within is not None:
            if not name.startswith(f"{within}layer."):
                continue
            path = within + name.removeprefix(f"{within}layer.")
        names, _ = found.setdefault(id(tensor), ([], tensor))
        names.append(path.replace(".base_layer.", "."))
    yield from found.values()


def _unpacked(tensor: Any) -> torch.Tensor:
    """Of four bits."""
    from bitsandbytes.functional import dequantize_4bit

    found: torch.Tensor = dequantize_4bit(tensor.data, tensor.quant_state)
    return found


def _save_config(inner: Any, folder: Path) -> None:
    """As the model would save it, whole and in float32."""
    inner.config.architectures = [type(inner).__name__]
    inner.config.dtype = "float32"
    if hasattr(inner.config, "quantization_config"):
        del inner.config.quantization_config
    inner.config.save_pretrained(folder)
    if inner.can_generate() and inner.generation_config is not None:
        inner.generation_config.save_pretrained(folder)


def _write_config(recipe: Recipe, model: Any, path: Path) -> None:
    if recipe.method in _OURS:
        said: dict[str, Any] = {"peft_type": _OURS[recipe.method]}
    else:
        said = model.peft_config[model.active_adapter].to_dict()
        said["rank_pattern"] = None if recipe.method is Method.ADALORA else said.get("rank_pattern")
        said["inference_mode"] = True
    said["base_model_name_or_path"] = recipe.base
    path.write_text(json.dumps(said, indent=2, sort_keys=True, default=_plain) + "\n", "utf-8")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
