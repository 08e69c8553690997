"""Which driver and which preparer serve which model. Torch-free: decided before anything loads."""

# ruff: noqa: SIM905 (a list of names reads better as text)
from __future__ import annotations

import difflib
from importlib import metadata

import msgspec

from llmos.abi.inference import GENERATE
from llmos.drivers.encoder.kinds import Purpose, find_purpose
from llmos.errors import ModelRejected, PluginError
from llmos.weights import ModelFacts

PREPARE_ITEMS = "llmos.drivers.encoder.prepare:make"
PREPARE_TEXT = "llmos.drivers.text.prepare:make"
"""The preparer of every model with a `tokenizer.json`."""


class DriverSpec(msgspec.Struct, frozen=True):
    """How to start a driver. `entry` and `prepare` are entry strings.

    `python` is the interpreter of its environment, empty for our own; `distributions` must be
    installed there, and are by the `extra` of ours (empty: by the base install). `base_bytes` is
    what its worker takes before a model is loaded. `snapshots` and `parks` are the driver's
    capabilities, known without importing it. `least_slots` as in
    `abi.DriverEntry`.
    """

    entry: str
    prepare: str
    python: str = ""
    distributions: list[str] = []
    extra: str = ""
    base_bytes: int = 0
    snapshots: bool = False
    parks: bool = False
    least_slots: int = 1


class DriverChoice(msgspec.Struct, frozen=True):
    """Who serves a model. `reason` says why, for people; `kinds` are what it can be asked for."""

    driver: str
    prepare: str
    reason: str
    kinds: list[str] = msgspec.field(default_factory=lambda: [GENERATE])


DRIVERS: dict[str, DriverSpec] = {
    "native": DriverSpec(
        entry="llmos.drivers.native.driver:NativeDriver",
        prepare=PREPARE_TEXT,
        distributions=["torch", "transformers", "safetensors", "tokenizers"],
        base_bytes=344 << 20,
        snapshots=True,
        parks=True,
    ),
    "gguf": DriverSpec(
        entry="llmos.drivers.gguf.driver:GGUFDriver",
        prepare="llmos.drivers.gguf.prepare:make",
        distributions=["llama-cpp-python"],
        extra="gguf",
        base_bytes=64 << 20,
        snapshots=True,
    ),
    "encoder": DriverSpec(
        entry="llmos.drivers.encoder.driver:EncoderDriver",
        prepare=PREPARE_ITEMS,
        distributions=["torch", "transformers", "safetensors", "tokenizers"],
        base_bytes=344 << 20,
        least_slots=64,
    ),
    "echo": DriverSpec(
        entry="llmos.drivers.echo:EchoDriver",
        prepare="llmos.drivers.echo:make",
        base_bytes=48 << 20,
        snapshots=True,
        parks=True,
    ),
}
"""Every driver by its name."""

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
    (
        "its attention is not behind Transformers' attention interface",
        ["CodeGen", "GPTJ", "GPTNeoFor", "XGLM", "StableLm", "Nemotron"],
    ),
]
"""Beginnings of architecture names, and why the native driver does not read them. First match."""

_GGUF_REASONS: list[tuple[str, list[str]]] = [
    ("it encodes, it does not generate", "bert nomic-bert jina-bert neo-bert modern-bert".split()),
    ("it has an encoder", ["t5"]),
    ("it is an adapter or a part of a model", ["clip", "mmproj", "control_vector", "imatrix"]),
    ("it makes sound, not text", ["wavtokenizer"]),
    ("it does not write from left to right", ["dream", "llada"]),
]
"""Beginnings of `general.architecture`, and why llama.cpp does not generate with them."""

_HEADS = [
    ("ForConditionalGeneration", "it has an encoder or reads more than text"),
    ("ForSequenceClassification", "it classifies, it does not generate"),
    ("ForTokenClassification", "it classifies, it does not generate"),
    ("ForMaskedLM", "it fills gaps, it does not generate"),
    ("ForQuestionAnswering", "it marks answers, it does not generate"),
    ("Model", "it has no head that predicts tokens"),
]


def find_missing(driver: str) -> str | None:
    """What to install before a driver of our own environment can run; None when it is all there."""
    spec = DRIVERS[driver]
    if spec.python:
        return None
    for name in spec.distributions:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return say_missing(driver, name)
    return None


def say_missing(driver: str, distribution: str) -> str:
    """The sentence of an error that a missing engine causes."""
    extra = DRIVERS[driver].extra
    wanted = f"llmos[{extra}]" if extra else "llmos"
    return f"the {driver} driver needs {distribution}: pip install '{wanted}'"


def find_refusal(architecture: str) -> str | None:
    """Why the native driver does not read an architecture; None when it does."""
    if architecture in NATIVE_ARCHITECTURES or architecture in NATIVE_MIXTURES:
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


def choose(facts: ModelFacts) -> DriverChoice:
    """Raises ModelRejected naming the architecture and the reason when no driver reads it,
    PluginError naming the install when one would and its engine is missing."""
    if facts.format == "gguf":
        return _choose_gguf(facts)
    purpose = find_purpose(facts.architecture, facts.labels, pools=facts.pools)
    if purpose is not None:
        return _choose_encoder(facts, purpose)
    refusal = _refuse(facts)
    if refusal is not None:
        raise ModelRejected(f"config.json: {refusal}")
    return DriverChoice(
        driver="native",
        prepare=PREPARE_TEXT,
        reason=f"{facts.architecture} from {facts.format} is read by the native driver",
    )


def _choose_gguf(facts: ModelFacts) -> DriverChoice:
    for reason, prefixes in _GGUF_REASONS:
        if facts.architecture.startswith(tuple(prefixes)):
            name = facts.architecture[:100]
            raise ModelRejected(f"{_file(facts)}{name} is not supported: {reason}")
    missing = find_missing("gguf")
    if missing is not None:
        raise PluginError(f"{_file(facts)}{missing}")
    kind = facts.quantization or facts.dtype
    return DriverChoice(
        driver="gguf",
        prepare=DRIVERS["gguf"].prepare,
        reason=f"{facts.architecture} from a GGUF file ({kind}) is read by llama.cpp",
    )


def _file(facts: ModelFacts) -> str:
    return f"{facts.files[0]}: " if facts.files else ""


def _choose_encoder(facts: ModelFacts, purpose: Purpose) -> DriverChoice:
    if facts.quantization:
        raise ModelRejected(
            f"config.json: {facts.architecture} quantized with {facts.quantization[:40]} is not "
            "supported"
        )
    return DriverChoice(
        driver="encoder",
        prepare=PREPARE_ITEMS,
        reason=f"{facts.architecture} is read by the encoder driver, for {purpose.kinds[0]}",
        kinds=purpose.kinds,
    )


def _refuse(facts: ModelFacts) -> str | None:
    refusal = find_refusal(facts.architecture)
    if facts.is_encoder_decoder:
        refusal = f"{facts.architecture[:100]} is not supported: it has an encoder"
    if refusal is not None:
        return refusal
    name = facts.architecture
    if facts.format != "safetensors":
        return f"{name} in {facts.format[:40]} files; the native driver reads safetensors"
    if facts.quantization and not facts.is_ours:
        return f"{name} quantized with {facts.quantization[:40]} is not supported"
    kinds = sorted(set(facts.layer_types) - {"full_attention", "sliding_attention"})
    if kinds:
        return f"{name} with layers of type {', '.join(kinds)[:200]} is not supported"
    return None
