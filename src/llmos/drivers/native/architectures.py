"""Which architectures the native driver reads, and why it does not read others."""

# ruff: noqa: SIM905 (a list of names reads better as text)
from __future__ import annotations

import difflib

from llmos.weights.seeing import SEEING

NATIVE_ARCHITECTURES = frozenset(
    """
    ApertusForCausalLM ArceeForCausalLM CohereForCausalLM Cohere2ForCausalLM
    Ernie4_5ForCausalLM Exaone4ForCausalLM GemmaForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM
    GlmForCausalLM Glm4ForCausalLM GPT2LMHeadModel GPTBigCodeForCausalLM GPTNeoXForCausalLM
    GraniteForCausalLM HeliumForCausalLM HunYuanDenseV1ForCausalLM LlamaForCausalLM
    MinistralForCausalLM Ministral3ForCausalLM MistralForCausalLM NanoChatForCausalLM
    OlmoForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM OPTForCausalLM PersimmonForCausalLM
    PhiForCausalLM Phi3ForCausalLM Qwen2ForCausalLM Qwen3ForCausalLM SeedOssForCausalLM
    SmolLM3ForCausalLM Starcoder2ForCausalLM VaultGemmaForCausalLM
    """.split()
)
"""Dense Transformers architectures whose logits were compared with Transformers' own attention."""

NATIVE_MIXTURES = frozenset(
    """
    GraniteMoeForCausalLM MixtralForCausalLM OlmoeForCausalLM PhimoeForCausalLM
    Qwen2MoeForCausalLM Qwen3MoeForCausalLM
    """.split()
)
"""The same for mixtures of experts: an expert works on all rows that chose it at once."""

_REASONS: list[tuple[str, list[str]]] = [
    ("it attends with a bias by distance (ALiBi)", ["Bloom", "Mpt", "Falcon"]),
    (
        "it has linear attention, state space or convolution layers",
        """Mamba FalconMamba FalconH1 Jamba Bamba Zamba Rwkv xLSTM RecurrentGemma Lfm2 Qwen3Next
        Qwen3_5 GraniteMoeHybrid MiniMax Nemotron_H NemotronH KimiLinear Olmo_Hybrid""".split(),
    ),
    ("its attention has sinks", ["GptOss"]),
    ("its keys and values are compressed (latent attention)", ["DeepseekV", "Youtu", "MiniCPM3"]),
    ("its attention works in chunks", ["Llama4"]),
    ("it subtracts one attention from another", ["DiffLlama"]),
    ("its layers share keys and values", ["Gemma3n", "Gemma4"]),
    ("its experts were not compared with Transformers' where there are images", ["Qwen3VLMoe"]),
    (
        "its attention is not behind Transformers' attention interface",
        ["CodeGen", "GPTJ", "GPTNeoFor", "XGLM", "StableLm", "Nemotron"],
    ),
]
"""Beginnings of architecture names, and why the native driver does not read them. First match."""

_HEADS = [
    ("ForConditionalGeneration", "it has an encoder, or reads what is neither text nor image"),
    ("ForSequenceClassification", "it classifies, it does not generate"),
    ("ForTokenClassification", "it classifies, it does not generate"),
    ("ForMaskedLM", "it fills gaps, it does not generate"),
    ("ForQuestionAnswering", "it marks answers, it does not generate"),
    ("Model", "it has no head that predicts tokens"),
]


def find_refusal(architecture: str) -> str | None:
    """Why the native driver does not read an architecture; None when it does."""
    if architecture in NATIVE_ARCHITECTURES | NATIVE_MIXTURES or architecture in SEEING:
        return None
    name = architecture[:100] or "the model"
    if not architecture:
        return "no architecture is named, so nothing says how to read the weights"
    for reason, prefixes in _REASONS:
        if architecture.startswith(tuple(prefixes)):
            return f"{name} is not supported: {reason}"
    for suffix, reason in _HEADS:
        if architecture.endswith(suffix):
            return f"{name} is not supported: {reason}"
    near = difflib.get_close_matches(architecture, NATIVE_ARCHITECTURES | NATIVE_MIXTURES, 1, 0.8)
    hint = f"; near: {near[0]}" if near else ""
    return f"{name} is not an architecture the native driver knows{hint}"
