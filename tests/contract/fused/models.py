"""Random models of every described architecture, small and of odd sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCAB_SIZE = 203
WINDOW = 7
LENGTH = 40
"""Tokens that a test reads: longer than the window."""

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 77,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
_EPS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
"""Made large enough that one read in place of another shows."""
_EVEN = {"head_dim": None}
_LONE = {"head_dim": None, "num_key_value_heads": None}
_GPT = {
    "vocab_size": VOCAB_SIZE,
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 6,
    "n_positions": 128,
    "n_inner": 77,
}
TYPES = ["sliding_attention", "full_attention", "sliding_attention"]
TYPED: dict[str, Any] = {"sliding_window": WINDOW, "layer_types": TYPES}
_QWEN = TYPED | {"use_sliding_window": True}
_GEMMA = TYPED | {"query_pre_attn_scalar": 10, "tie_word_embeddings": True}
_CAPS = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "ApertusForCausalLM": {"rope_parameters": LLAMA3},
    "ArceeForCausalLM": {},
    "CohereForCausalLM": {"logit_scale": 0.5, "use_qk_norm": True},
    "Cohere2ForCausalLM": TYPED | _EVEN,
    "Ernie4_5ForCausalLM": {"use_bias": True},
    "Exaone4ForCausalLM": TYPED,
    "GPT2LMHeadModel": _GPT,
    "GPTBigCodeForCausalLM": _GPT,
    "GPTNeoXForCausalLM": _LONE | {"rotary_pct": 0.5},
    "Gemma2ForCausalLM": _GEMMA | _CAPS,
    "Gemma3ForCausalLM": _GEMMA | {"final_logit_softcapping": 3.0},
    "GemmaForCausalLM": {"tie_word_embeddings": True},
    "Glm4ForCausalLM": {"attention_bias": True},
    "GlmForCausalLM": {},
    "GraniteForCausalLM": {
        "attention_multiplier": 0.2,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.3,
        "logits_scaling": 4.0,
    },
    "HeliumForCausalLM": {"head_dim": 8},
    "HunYuanDenseV1ForCausalLM": {},
    "LlamaForCausalLM": {},
    "Ministral3ForCausalLM": {
        "sliding_window": WINDOW,
        "rope_parameters": YARN | {"llama_4_scaling_beta": 0.1},
    },
    "MinistralForCausalLM": TYPED,
    "MistralForCausalLM": {"sliding_window": WINDOW},
    "NanoChatForCausalLM": {"final_logit_softcapping": 3.0},
    "OPTForCausalLM": {"ffn_dim": 77, "tie_word_embeddings": True} | _LONE,
    "Olmo2ForCausalLM": {},
    "Olmo3ForCausalLM": TYPED,
    "OlmoForCausalLM": {"clip_qkv": 0.8},
    "PersimmonForCausalLM": _LONE,
    "Phi3ForCausalLM": {"sliding_window": WINDOW, "partial_rotary_factor": 0.5} | _EVEN,
    "PhiForCausalLM": _EVEN,
    "Qwen2ForCausalLM": _QWEN,
    "Qwen3ForCausalLM": _QWEN,
    "SeedOssForCausalLM": {},
    "SmolLM3ForCausalLM": {"no_rope_layers": [1, 0, 1]},
    "Starcoder2ForCausalLM": {"sliding_window": WINDOW, "hidden_act": "gelu_pytorch_tanh"},
    "VaultGemmaForCausalLM": _GEMMA | _CAPS,
}
"""What each architecture's model is made with, besides the common fields."""


def make(architecture: str, folder: Path, seed: int = 7, **overrides: Any) -> Any:
    """Write a random float32 model to a folder; the model itself, with eager attention.

    `overrides` are fields of its config; None leaves a field to Transformers.
    """
    import torch
    import transformers

    cls: Any = getattr(transformers, architecture)
    own = CONFIGS[architecture]
    common = _COMMON if "n_embd" not in own else {}
    common = common | {name: 0.02 for name in _EPS if hasattr(cls.config_class, name)}
    fields = {k: v for k, v in (common | own | overrides).items() if v is not None}
    config = cls.config_class(**fields)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = cls(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        # neither ones nor zeros are left in norms and biases, and attention is far from even
        if parameter.dim() == 2 and parameter.shape[0] > 6:
            parameter.copy_(1.5 * torch.randn(parameter.shape) / parameter.shape[1] ** 0.5)
        else:
            parameter.add_(0.3 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return model


def read_config(architecture: str, folder: Path) -> Any:
    """As the driver reads it."""
    import transformers

    config = getattr(transformers, architecture).config_class.from_pretrained(folder)
    config.architectures = [architecture]
    return config


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the stored tensors."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                shapes[name] = tuple(file.get_slice(name).get_shape())
    return shapes


def read_tensors(folder: Path) -> dict[str, Any]:
    """All tensors of a folder."""
    from safetensors.torch import load_file

    return {
        n: t for path in sorted(folder.glob("*.safetensors")) for n, t in load_file(path).items()
    }
