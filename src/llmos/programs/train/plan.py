"""Looks at a run before it is accepted: is it one, and does it fit? The server imports this."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.registry import ModelVersion
from llmos.errors import InvalidRequest, ModelTooLarge
from llmos.programs.train.memory import Sizes, needed_bytes, smaller
from llmos.programs.train.recipe import (
    BASE,
    RECIPE,
    TRAIN,
    Architecture,
    Recipe,
    family_of,
    find_pooling,
    parse,
)

MAX_CONFIG_BYTES = 16 << 20
MATRICES = {"llama": 3, "modernbert": 3}
"""Of a layer's inner part; 2 of any other family."""


def plan(
    inputs: Mapping[str, Any],
    files: Mapping[str, int],
    models: Mapping[str, ModelVersion],
    budget_bytes: int,
) -> int:
    """See `abi.Plan`."""
    recipe = parse(inputs.get(RECIPE))
    if TRAIN not in files:
        raise InvalidRequest("there is nothing to learn from: data.train", param="files.train")
    if recipe.base and BASE not in models:
        raise InvalidRequest("the base is given as `models.base`", param="models.base")
    base = models.get(BASE) if recipe.base else None
    if base is not None:
        _check_base(recipe, base)
    sizes = scratch_sizes(recipe) if base is None else base_sizes(base)
    data_bytes = sum(files.values())
    needed = needed_bytes(recipe, sizes, data_bytes)
    if needed <= budget_bytes:
        return needed
    instead = smaller(recipe, sizes, budget_bytes, data_bytes)
    raise ModelTooLarge(
        f"this run needs {needed / (1 << 30):.2f} GiB, the budget is "
        f"{budget_bytes / (1 << 30):.2f} GiB; "
        + (f"it would fit with {instead}" if instead else "no batch size makes it fit"),
        param="recipe.training.batch_size",
    )


def _check_base(recipe: Recipe, base: ModelVersion) -> None:
    """Raises InvalidRequest for what cannot be learned on."""
    if base.format != "safetensors":
        raise InvalidRequest(
            f"{base.ref} is {base.format}: only safetensors are trained", param="recipe.base"
        )
    if base.adapter is not None:
        raise InvalidRequest(
            f"{base.ref} is an adapter of {base.adapter.base}: learn on that, or on a version that "
            "was registered merged",
            param="recipe.base",
        )
    if base.dtype in ("int8", "int4"):
        raise InvalidRequest(
            f"{base.ref} is quantized ({base.dtype}): name what it was made of",
            param="recipe.base",
        )
    if recipe.model.pooling:
        family = str(_config(Path(base.folder) / "config.json").get("model_type", ""))
        find_pooling(family, recipe.model.pooling, base.ref)
    longest = recipe.model.max_length
    if 0 < base.context_length < longest:
        raise InvalidRequest(
            f"recipe: model.max_length: {longest} tokens, {base.ref} reads {base.context_length}",
            param="recipe.model.max_length",
        )


def scratch_sizes(recipe: Recipe) -> Sizes:
    """Of a model that is made."""
    wanted, family = recipe.model, family_of(recipe)
    inner = wanted.intermediate_size or 4 * wanted.hidden_size
    layers = wanted.num_layers * (2 if family == "t5" else 1)
    return Sizes(
        _count(wanted, family, inner), wanted.hidden_size, inner, layers, wanted.vocab_size
    )


def _count(wanted: Architecture, family: str, inner: int) -> int:
    """Weights, biases and norms included by a hundredth."""
    hidden = wanted.hidden_size
    attention, mixing = 4 * hidden * hidden, MATRICES.get(family, 2) * hidden * inner
    layers = wanted.num_layers * (attention + mixing)
    if family == "t5":
        layers += wanted.num_layers * (2 * attention + mixing)
    tables = (wanted.vocab_size + wanted.max_length) * hidden + hidden * hidden
    return int(1.01 * (layers + tables))


def base_sizes(base: ModelVersion) -> Sizes:
    """Of one that is registered; from its configuration, what is unsaid by its width."""
    config = _config(Path(base.folder) / "config.json")

    def find(*names: str, otherwise: int) -> int:
        found = (config.get(name) for name in names)
        return next((n for n in found if isinstance(n, int) and n > 0), otherwise)

    hidden = find("hidden_size", "d_model", "n_embd", "dim", otherwise=1024)
    inner = find(
        "intermediate_size", "d_ff", "n_inner", "hidden_dim", "ffn_dim", otherwise=4 * hidden
    )
    layers = find("num_hidden_layers", "n_layer", "num_layers", "n_layers", otherwise=24)
    if config.get("is_encoder_decoder"):
        layers += find("num_decoder_layers", "decoder_layers", otherwise=layers)
    return Sizes(base.num_parameters, hidden, inner, layers, base.vocab_size)


def _config(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            config = msgspec.json.decode(file.read(MAX_CONFIG_BYTES), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidRequest(
            f"the base has no configuration: {error}", param="recipe.base"
        ) from None
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config
