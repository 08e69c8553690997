"""The model to learn with: a base's weights with a head that suits, or one from scratch."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from llmos.errors import InvalidRequest, PluginError
from llmos.programs.train.recipe import Method, family_of, find_pooling
from llmos.programs.train.scratch import make_config
from llmos.programs.train.work import Setting


def load_or_make(setting: Setting, kind: str, tokenizer: Any, **fields: Any) -> Any:
    """An Auto class of Transformers, by its name. Weights are float32, whatever they are stored in.

    Raises InvalidRequest for a base that has no model of this kind.
    """
    import transformers

    auto: Any = getattr(transformers, kind)
    fields |= pooled(setting)
    if setting.base is None:
        config = make_config(family_of(setting.recipe), setting.recipe.model, tokenizer, **fields)
        return auto.from_config(config)
    try:
        model, told = auto.from_pretrained(
            setting.base,
            local_files_only=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **quantized(setting),
            **fields,
        )
    except ValueError as error:
        raise InvalidRequest(
            f"{setting.recipe.base} cannot learn to {setting.recipe.objective}: {error}",
            param="recipe.base",
        ) from None
    model.llmos_new = frozenset(told["missing_keys"])
    if model.config.pad_token_id is None and tokenizer is not None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model


def new_weights(model: Any) -> frozenset[str]:
    """Names of those that the base had none of, and that were drawn."""
    found: frozenset[str] = getattr(model, "llmos_new", frozenset())
    return found


def reads_types(model: Any) -> bool:
    """Whether it is told which of two texts a token is of. RoBERTa has a place for it, and knows
    one kind only; ModernBERT has none."""
    named = "token_type_ids" in inspect.signature(model.forward).parameters
    return named and getattr(model.config, "type_vocab_size", 0) > 1


def pooled(setting: Setting) -> dict[str, str]:
    """What makes a head read what the recipe says. Raises InvalidRequest for a base that has no
    choice."""
    wanted = setting.recipe.model.pooling
    if wanted is None:
        return {}
    family = family_of(setting.recipe)
    if setting.base is not None:
        from transformers import AutoConfig

        family = AutoConfig.from_pretrained(setting.base, local_files_only=True).model_type
    return {"classifier_pooling": find_pooling(family, wanted, setting.recipe.base)}


def quantized(setting: Setting) -> dict[str, Any]:
    """What makes the base's weights four bits wide, where the method wants that. Raises
    PluginError without bitsandbytes."""
    if setting.recipe.method is not Method.QLORA:
        return {}
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise PluginError(
            "method qlora needs bitsandbytes: pip install 'llmos[train]' bitsandbytes"
        ) from None
    from transformers import BitsAndBytesConfig

    wide: Any = BitsAndBytesConfig
    config = wide(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    return {"quantization_config": config}
