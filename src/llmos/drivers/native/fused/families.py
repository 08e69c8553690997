"""Every architecture that is described, read off its module in Transformers 5.

A test compares the config fields that those modules read with what is handled here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmos.drivers.native.fused.family import Family, Fused, Windows
from llmos.drivers.native.fused.spec import NormKind, NormOver, RopeStyle


def _query_scale(config: Any, head_dim: int, layer: int) -> float:
    return float(config.query_pre_attn_scalar**-0.5)


def _granite_scale(config: Any, head_dim: int, layer: int) -> float:
    return float(config.attention_multiplier)


def _gpt2_scale(config: Any, head_dim: int, layer: int) -> float:
    scale = head_dim**-0.5 if config.scale_attn_weights else 1.0
    return float(scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale)


def _bigcode_scale(config: Any, head_dim: int, layer: int) -> float:
    return float(head_dim**-0.5 if config.scale_attn_weights else 1.0)


def _sliding(config: Any, layer: int) -> bool:
    return bool(config.layer_types[layer] == "sliding_attention")


def _exaone_turns(config: Any, layer: int) -> bool:
    return config.sliding_window is None or _sliding(config, layer)


def _smollm_turns(config: Any, layer: int) -> bool:
    return bool(config.no_rope_layers[layer])


def _smollm_refuse(config: Any) -> str | None:
    if "sliding_attention" in config.layer_types and not config.use_sliding_window:
        return "layer_types ask for a sliding window that use_sliding_window denies"
    return None


def _ministral3_length(config: Any) -> int | None:
    # from there on queries grow with their position
    return int(config.rope_parameters["original_max_position_embeddings"])


def _ministral3_refuse(config: Any) -> str | None:
    for name in ("original_max_position_embeddings", "llama_4_scaling_beta"):
        if (config.rope_parameters or {}).get(name) is None:
            return f"rope_parameters have no {name}"
    return None


def _opt_refuse(config: Any) -> str | None:
    if not config.do_layer_norm_before:
        return "it normalises after the residual (do_layer_norm_before is false)"
    if config._remove_final_layer_norm:
        return "its final norm is removed"
    if config.word_embed_proj_dim != config.hidden_size:
        return "its embedding is projected (word_embed_proj_dim)"
    return None


def _always(fused: Fused) -> Callable[[Any], Fused]:
    return lambda config: fused


def _bigcode_fused(config: Any) -> Fused:
    return Fused.BLOCKS if config.multi_query else Fused.HEADS


def _root_of_width(config: Any) -> float:
    return float(config.hidden_size**0.5)


def _families() -> dict[str, Family]:
    return _llamas() | _gemmas() | _post_normed() | _interleaved() | _layer_normed() | _gpts()


def _llamas() -> dict[str, Family]:
    """A norm before attention, one before a gated MLP."""
    biased = Family(qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias")
    return {
        "LlamaForCausalLM": biased,
        "MistralForCausalLM": Family(windows=Windows.ALL),
        "MinistralForCausalLM": Family(windows=Windows.TYPED),
        "Ministral3ForCausalLM": Family(
            windows=Windows.ALL, max_length=_ministral3_length, refuse=_ministral3_refuse
        ),
        "Qwen2ForCausalLM": Family(qkv_bias=True, windows=Windows.TYPED),
        "Qwen3ForCausalLM": Family(
            qkv_bias="attention_bias",
            o_bias="attention_bias",
            qk_norm=True,
            windows=Windows.TYPED,
        ),
        "Phi3ForCausalLM": Family(
            qkv="qkv_proj",
            fused=_always(Fused.BLOCKS),
            gate_up="gate_up_proj",
            partial=True,
            windows=Windows.ALL,
        ),
        "SmolLM3ForCausalLM": Family(
            qkv_bias="attention_bias",
            o_bias="attention_bias",
            mlp_bias="mlp_bias",
            turns=_smollm_turns,
            windows=Windows.TYPED,
            refuse=_smollm_refuse,
        ),
        "SeedOssForCausalLM": Family(
            qkv_bias="attention_bias", o_bias="attention_out_bias", mlp_bias="mlp_bias"
        ),
        "ArceeForCausalLM": Family(
            qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias", gate=None
        ),
        "GraniteForCausalLM": Family(
            qkv_bias="attention_bias",
            o_bias="attention_bias",
            mlp_bias="mlp_bias",
            scale=_granite_scale,
            embed_scale=lambda config: float(config.embedding_multiplier),
            residual_scale=lambda config: float(config.residual_multiplier),
            logit_scale=lambda config: 1.0 / float(config.logits_scaling),
        ),
        "HunYuanDenseV1ForCausalLM": Family(
            qkv_bias="attention_bias",
            o_bias="attention_bias",
            qk_norm=True,
            q_norm="query_layernorm",
            k_norm="key_layernorm",
            norm_after_rope=True,
        ),
        "ApertusForCausalLM": Family(
            qkv_bias="attention_bias",
            o_bias="attention_bias",
            qk_norm=True,
            pre_attn="attention_layernorm",
            pre_mlp="feedforward_layernorm",
            gate=None,
        ),
        "NanoChatForCausalLM": Family(
            norm_weight=False,
            embed_norm=True,
            qkv_bias="attention_bias",
            o_bias="attention_bias",
            qk_norm=True,
            norm_after_rope=True,
            backwards=True,
            gate=None,
            up="fc1",
            down="fc2",
            logit_softcap="final_logit_softcapping",
        ),
    }


def _gemmas() -> dict[str, Family]:
    """Norms of 1 + weight, embeddings times the root of their width."""
    before_and_after = {
        "post_attn": "post_attention_layernorm",
        "pre_mlp": "pre_feedforward_layernorm",
        "post_mlp": "post_feedforward_layernorm",
    }

    def gemma(**fields: Any) -> Family:
        biases = {"qkv_bias": "attention_bias", "o_bias": "attention_bias"}
        return Family(plus_one=True, embed_scale=_root_of_width, **(biases | fields))

    def later(**fields: Any) -> Family:
        return gemma(
            windows=Windows.TYPED,
            scale=_query_scale,
            activation="hidden_activation",
            logit_softcap="final_logit_softcapping",
            **fields,
        )

    return {
        "GemmaForCausalLM": gemma(),
        "Gemma2ForCausalLM": later(softcap="attn_logit_softcapping", **before_and_after),
        "Gemma3ForCausalLM": later(qk_norm=True, **before_and_after),
        "VaultGemmaForCausalLM": later(
            softcap="attn_logit_softcapping", pre_mlp="pre_feedforward_layernorm"
        ),
    }


def _post_normed() -> dict[str, Family]:
    """Norms after attention and after the MLP, none before."""
    after: dict[str, Any] = {
        "pre_attn": None,
        "post_attn": "post_attention_layernorm",
        "pre_mlp": None,
        "post_mlp": "post_feedforward_layernorm",
        "qk_norm": True,
    }
    olmo = after | {
        "qkv_bias": "attention_bias",
        "o_bias": "attention_bias",
        "norm_over": NormOver.ALL,
    }
    return {
        "Olmo2ForCausalLM": Family(**olmo),
        "Olmo3ForCausalLM": Family(windows=Windows.TYPED, **olmo),
        "Exaone4ForCausalLM": Family(windows=Windows.TYPED, turns=_exaone_turns, **after),
    }


def _interleaved() -> dict[str, Family]:
    """Neighbouring elements turn together."""
    glm: dict[str, Any] = {
        "rope": RopeStyle.INTERLEAVED,
        "partial": True,
        "qkv_bias": "attention_bias",
        "gate_up": "gate_up_proj",
    }
    cohere: dict[str, Any] = {
        "rope": RopeStyle.INTERLEAVED,
        "norm": NormKind.LAYER,
        "eps": "layer_norm_eps",
        "pre_mlp": "input_layernorm",
        "parallel": True,
        "qkv_bias": "attention_bias",
        "o_bias": "attention_bias",
        "logit_scale": lambda config: float(config.logit_scale),
    }
    return {
        "GlmForCausalLM": Family(**glm),
        "Glm4ForCausalLM": Family(
            post_attn="post_self_attn_layernorm", post_mlp="post_mlp_layernorm", **glm
        ),
        "HeliumForCausalLM": Family(
            rope=RopeStyle.INTERLEAVED, qkv_bias="attention_bias", mlp_bias="mlp_bias"
        ),
        "Ernie4_5ForCausalLM": Family(
            rope=RopeStyle.INTERLEAVED, qkv_bias="use_bias", o_bias="use_bias", mlp_bias="use_bias"
        ),
        "CohereForCausalLM": Family(qk_norm="use_qk_norm", norm_over=NormOver.EACH, **cohere),
        "Cohere2ForCausalLM": Family(windows=Windows.TYPED, turns=_sliding, **cohere),
    }


def _layer_normed() -> dict[str, Family]:
    """Means are taken off; rotary positions."""
    layer: dict[str, Any] = {"norm": NormKind.LAYER, "norm_bias": True, "eps": "layer_norm_eps"}
    plain: dict[str, Any] = {"gate": None, "qkv_bias": True, "o_bias": True, "mlp_bias": True}
    by_head: dict[str, Any] = {
        "qkv": "query_key_value",
        "fused": _always(Fused.HEADS),
        "o": "dense",
        "own_head_dim": False,
        "grouped": False,
        "partial": True,
        "up": "dense_h_to_4h",
        "down": "dense_4h_to_h",
    }
    norms: dict[str, Any] = {
        "qk_norm": "qk_layernorm",
        "q_norm": "q_layernorm",
        "k_norm": "k_layernorm",
        "final_norm": "final_layernorm",
    }
    neox = plain | {"qkv_bias": "attention_bias", "o_bias": "attention_bias"}
    return {
        "OlmoForCausalLM": Family(
            norm=NormKind.LAYER,
            norm_weight=False,
            eps=1e-5,
            qkv_bias="attention_bias",
            o_bias="attention_bias",
            clip="clip_qkv",
        ),
        "Starcoder2ForCausalLM": Family(
            norm=NormKind.LAYER,
            norm_bias=True,
            eps="norm_epsilon",
            qkv_bias="use_bias",
            o_bias="use_bias",
            mlp_bias="use_bias",
            gate=None,
            up="c_fc",
            down="c_proj",
            windows=Windows.ALL,
        ),
        "PhiForCausalLM": Family(
            pre_mlp="input_layernorm",
            parallel=True,
            partial=True,
            o="dense",
            up="fc1",
            down="fc2",
            head_bias=True,
            **layer,
            **plain,
            **norms,
        ),
        "PersimmonForCausalLM": Family(**layer, **plain, **by_head, **norms),
        "GPTNeoXForCausalLM": Family(
            base="gpt_neox",
            embed="embed_in",
            final_norm="final_layer_norm",
            heads=("lm_head", "embed_out"),
            attention="attention",
            parallel="use_parallel_residual",
            **layer,
            **neox,
            **by_head,
        ),
    }


def _gpts() -> dict[str, Family]:
    """Learned positions, no rotation."""
    learned: dict[str, Any] = {
        "rope": None,
        "norm": NormKind.LAYER,
        "norm_bias": True,
        "own_head_dim": False,
        "activation": "activation_function",
        "gate": None,
    }
    gpt: dict[str, Any] = learned | {
        "base": "transformer",
        "embed": "wte",
        "positions": "wpe",
        "layers": "h",
        "final_norm": "ln_f",
        "eps": "layer_norm_epsilon",
        "pre_attn": "ln_1",
        "pre_mlp": "ln_2",
        "attention": "attn",
        "qkv": "c_attn",
        "o": "c_proj",
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
        "up": "c_fc",
        "down": "c_proj",
    }
    opt = learned | {
        "norm_weight": "layer_norm_elementwise_affine",
        "norm_bias": "layer_norm_elementwise_affine",
        "qkv_bias": "enable_bias",
        "o_bias": "enable_bias",
        "mlp_bias": "enable_bias",
    }
    return {
        "GPT2LMHeadModel": Family(
            fused=_always(Fused.BLOCKS), transposed=True, grouped=False, scale=_gpt2_scale, **gpt
        ),
        "GPTBigCodeForCausalLM": Family(fused=_bigcode_fused, scale=_bigcode_scale, **gpt),
        "OPTForCausalLM": Family(
            base="model.decoder",
            final_norm="final_layer_norm",
            positions="embed_positions",
            position_offset=2,
            eps=1e-5,
            pre_attn="self_attn_layer_norm",
            pre_mlp="final_layer_norm",
            grouped=False,
            o="out_proj",
            mlp="",
            up="fc1",
            down="fc2",
            refuse=_opt_refuse,
            **opt,
        ),
    }


FAMILIES = _families()
"""By the name of the architecture."""
