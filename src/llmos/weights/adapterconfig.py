"""What an adapter's configuration may say: what is read here, what only its training needed, and
nothing else. A field that nobody here knows may change what its tensors mean."""

from __future__ import annotations

from typing import Any

from llmos.errors import ModelRejected
from llmos.weights.jsonfile import Fields

MAX_RANK = 1 << 16
MAX_ALPHA = 1e6

_ALL = {
    *("peft_type", "task_type", "base_model_name_or_path", "revision", "auto_mapping"),
    *("peft_version", "inference_mode", "modules_to_save"),
}
_LAYERS = {
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    "fan_in_fan_out",
}
_RANKS = _LAYERS | {
    *("r", "rank_pattern", "lora_alpha", "lora_dropout", "use_rslora", "use_dora"),
    *("init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("runtime_config", "megatron_core", "qalora_group_size"),
}
_TOKENS = {
    *("num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads"),
    "num_layers",
}
_ENCODERS = _TOKENS | {
    *("encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers"),
    "encoder_dropout",
}
_KNOWN = {
    "LORA": _RANKS,
    "ADALORA": _RANKS
    | {"target_r", "init_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight"}
    | {"total_step"},
    "IA3": _LAYERS | {"feedforward_modules", "init_ia3_weights"},
    "PROMPT_TUNING": _TOKENS
    | {"prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"}
    | {"tokenizer_kwargs"},
    "P_TUNING": _ENCODERS,
    "PREFIX_TUNING": _ENCODERS | {"prefix_projection", "init_weights"},
}
"""By kind, fields whose values change nothing, or are read."""

_UNSAID: tuple[Any, ...] = (None, False, {}, [], "")
_DEFAULTS = {"bias": "none"}
"""What fields that are not known say when they say nothing: where it is not one of `_UNSAID`."""

_INITS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Beginnings of LoRA's matrices that leave the base as it is."""


def check_config(config: Fields, kind: str) -> None:
    """Raises ModelRejected for the first field that is wrong, or is not read here."""
    known = _ALL | _KNOWN.get(kind, set())
    for name, value in config.values.items():
        if name not in known and value not in _UNSAID and value != _DEFAULTS.get(name):
            raise ModelRejected(
                f"{config.file}: {name[:80]} is not read here ({repr(value)[:80]}): merge it into "
                "its base first"
            )
    init = config.values.get("init_lora_weights")
    if init not in _INITS:
        raise ModelRejected(
            f"{config.file}: init_lora_weights {repr(init)[:80]} changed the base it was learned "
            "on: save it as plain LoRA (PEFT's path_initial_model_for_weight_conversion), or merge "
            "it into its base first"
        )
    for name in ("use_rslora", "use_dora", "fan_in_fan_out"):
        config.flag(name)
    alpha_of(config)
    config.find_count("r", high=MAX_RANK)


def alpha_of(config: Fields) -> float:
    """What LoRA's product is scaled with; PEFT's own default where it is not said."""
    found = config.find_number("lora_alpha", most=MAX_ALPHA)
    return 8.0 if found is None else found
