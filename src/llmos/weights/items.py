"""Facts about models that answer item by item: classifiers, encoders, those of images and sound.

Their configurations say less than those of language models do: some have no vocabulary, some no
longest text, and the sizes go by other names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.registry import LoadCost
from llmos.errors import ModelRejected
from llmos.weights.dtypes import FLOATS, ITEM_BYTES
from llmos.weights.facts import ModelFacts
from llmos.weights.footprint import LIBRARY_BYTES, TABLE_BYTES, TABLES_PER_TOKENIZER_BYTE
from llmos.weights.itemscratch import DECODED_TOKENS, VOICE_BYTES, item_scratch_bytes
from llmos.weights.jsonfile import Fields, read_object
from llmos.weights.labels import find_labels
from llmos.weights.limits import MAX_CONFIG_BYTES
from llmos.weights.processor import loaded_dtype
from llmos.weights.safetensors import Tensor
from llmos.weights.seeing import SEEING

SUFFIXES = (
    *("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"),
    *("ForMaskedLM", "Model", "ForConditionalGeneration", "ForCTC", "ImageClassification"),
    "ForObjectDetection",
)
"""Of architectures."""

PARTS = {"VisionEncoderDecoderModel": "decoder", "BlipForConditionalGeneration": "text_config"}
"""Of architectures made of two models, where the one that writes is described."""

SPELLERS = frozenset({"VitsModel"})
"""Architectures that read letters, by `vocab.json`."""

UNSAID_TOKENS = 512
"""A text's length where positions are relative and nobody says more."""

_LOADABLE = ("float32", "bfloat16", "float16")
_WIDTHS = ("hidden_size", "d_model", "dim", "embed_dim", "n_embd")
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers")
_HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head", "encoder_attention_heads")
_LENGTHS = ("max_position_embeddings", "n_positions", "max_target_positions")


def is_for_items(config: Fields) -> bool:
    """Whether a configuration is of such a model; one that wraps a language model is not."""
    architecture = (config.words("architectures", most=16) or [""])[0]
    is_headed = architecture.endswith(("LMHeadModel", "DoubleHeadsModel"))  # GPT2LMHeadModel, say
    is_wrapped = config.find_section("text_config") is not None and architecture not in PARTS
    writes = is_headed or is_wrapped or architecture in SEEING
    return architecture.endswith(SUFFIXES) and not writes


def item_facts(
    folder: Path, names: list[str], config: Fields, *, files: list[str], tensors: list[Tensor]
) -> ModelFacts:
    """Facts of a folder whose weights were checked. Raises ModelRejected."""
    has_tokenizer = "tokenizer.json" in names
    architecture = (config.words("architectures", most=16) or [""])[0]
    if architecture in SPELLERS:
        if "vocab.json" not in names:
            raise ModelRejected("vocab.json: missing")
    elif not has_tokenizer and "preprocessor_config.json" not in names:
        raise ModelRejected("tokenizer.json: missing, and so is preprocessor_config.json")
    config, whole = config.find_section(PARTS.get(architecture, "")) or config, config
    quantization = whole.find_section("quantization_config")
    find_vocab = config.get_count if has_tokenizer else config.find_count
    heads = _count(config, _HEADS, 1 << 16)
    width = _width(config)
    facts = ModelFacts(
        format="safetensors",
        architecture=architecture,
        model_type=whole.find_word("model_type"),
        dtype=_dtype(whole, tensors),
        num_parameters=sum(tensor.num_elements for tensor in tensors),
        context_length=_length(folder, config),
        vocab_size=find_vocab("vocab_size", high=1 << 24) or 1,
        hidden_size=width,
        num_layers=_count(config, _LAYERS, 4096),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=max(1, width // heads),
        weights_bytes=sum(tensor.end - tensor.begin for tensor in tensors),
        footprint_bytes=0,
        tied=True,
        has_tokenizer=has_tokenizer,
        has_chat_template=False,
        files=files,
        is_encoder_decoder=whole.flag("is_encoder_decoder") or architecture in PARTS,
        quantization="" if quantization is None else quantization.find_word("quant_method") or "?",
        keeps_kv=False,
        labels=find_labels(whole.values),
        pools="modules.json" in names,
    )
    return _with_costs(facts, folder, tensors)


def _with_costs(facts: ModelFacts, folder: Path, tensors: Sequence[Tensor]) -> ModelFacts:
    tokenizer = folder / "tokenizer.json"
    tables = TABLE_BYTES + LIBRARY_BYTES
    if facts.has_tokenizer:
        tables += TABLES_PER_TOKENIZER_BYTE * tokenizer.stat().st_size

    def cost(dtype: str) -> LoadCost:
        size = ITEM_BYTES[dtype]
        loaded = sum(t.num_elements * size for t in tensors)
        cast = sum(t.end - t.begin for t in tensors if FLOATS.get(t.dtype) != dtype)
        scratch = item_scratch_bytes(facts.hidden_size, facts.vocab_size, size)
        if facts.architecture in SPELLERS:
            scratch += VOICE_BYTES
        if facts.is_encoder_decoder:
            per_token = 2 * facts.num_layers * facts.num_heads * facts.head_dim * size
            scratch += 2 * DECODED_TOKENS * per_token
        return LoadCost(loaded + tables + max(cast, scratch), 0)

    loads = {dtype: cost(dtype) for dtype in _LOADABLE}
    chosen = loads.get(loaded_dtype(facts.dtype), loads["float32"])
    return msgspec.structs.replace(facts, footprint_bytes=chosen.footprint_bytes, loads=loads)


def _count(config: Fields, names: tuple[str, ...], high: int) -> int:
    """1 where it goes by a name of its own: it only bounds what is reserved for texts."""
    found: Any = next((n for n in names if isinstance(config.values.get(n), int)), None)
    return 1 if found is None else config.get_count(found, high=high)


def _width(config: Fields) -> int:
    sizes = config.values.get("hidden_sizes")
    if isinstance(sizes, list) and sizes and all(isinstance(n, int) for n in sizes):
        return int(max(1, min(1 << 20, max(sizes))))
    return _count(config, _WIDTHS, 1 << 20)


def _length(folder: Path, config: Fields) -> int:
    found = config.find_count(*_LENGTHS, high=1 << 30)
    if found is not None:
        return found
    path = folder / "tokenizer_config.json"
    said: Any = read_object(path, MAX_CONFIG_BYTES).get("model_max_length") if path.is_file() else 0
    is_said = isinstance(said, int) and not isinstance(said, bool) and 0 < said < 1 << 24
    return said if is_said else UNSAID_TOKENS


def _dtype(config: Fields, tensors: list[Tensor]) -> str:
    for name in ("dtype", "torch_dtype"):
        said = config.find_word(name).removeprefix("torch.")
        if said in ITEM_BYTES:
            return said
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.dtype in FLOATS:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.num_elements
    return FLOATS[max(sizes, key=lambda d: sizes[d])] if sizes else "float32"
