"""From a folder nobody vouches for to facts that can be relied on."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import msgspec

from llmos.errors import ModelRejected
from llmos.weights.adapters import has_adapter
from llmos.weights.adapting import adapted
from llmos.weights.card import find_license
from llmos.weights.dtypes import FLOATS, ITEM_BYTES
from llmos.weights.facts import ModelFacts
from llmos.weights.folder import has_safetensors, list_files, read_weights, require
from llmos.weights.gguf_inspection import inspect_gguf, select_file
from llmos.weights.items import is_for_items, item_facts
from llmos.weights.jsonfile import Fields, read_object
from llmos.weights.limits import MAX_CONFIG_BYTES
from llmos.weights.loadcost import Sizes, with_costs
from llmos.weights.onnx_inspection import inspect_onnx, select_onnx
from llmos.weights.openvino_inspection import inspect_openvino, select_openvino
from llmos.weights.quantizable import HEADS
from llmos.weights.safetensors import Tensor, read_header
from llmos.weights.seeing import read_tower, text_fields
from llmos.weights.stored import METHOD, Stored, check_headers, read_bits
from llmos.weights.textmodel import (
    check_embedding,
    check_tokenizer,
    context_length,
    has_chat_template,
    sliding_window,
)


def inspect(folder: Path, names: list[str] | None = None) -> ModelFacts:
    """Check a model folder and tell what it holds. Blocking; reads headers, never tensor data.

    `names` are the files to go by, already checked by `list_files`; None: all of the folder.
    Raises ModelRejected naming the file and the reason.
    """
    names = list_files(folder) if names is None else names
    if has_adapter(names):
        base, tensors = _inspect(folder, names)
        return adapted(folder, base, tensors)
    if not has_safetensors(names) and (gguf := select_file(names)) is not None:
        return inspect_gguf(folder, gguf)
    if not has_safetensors(names) and select_openvino(names):
        return inspect_openvino(folder, names)
    if not has_safetensors(names) and (onnx := select_onnx(names)) is not None:
        return inspect_onnx(folder, names, onnx)
    return _inspect(folder, names)[0]


def _inspect(folder: Path, names: list[str]) -> tuple[ModelFacts, list[Tensor]]:
    """Of a folder of safetensors, with the headers of its tensors."""
    require(names, "config.json")
    config = Fields("config.json", read_object(folder / "config.json", MAX_CONFIG_BYTES))
    files, tensors = read_weights(folder, names)
    if is_for_items(config):
        if "tokenizer.json" in names:
            check_tokenizer(folder)
        facts = item_facts(folder, names, config, files=files, tensors=tensors)
        return msgspec.structs.replace(facts, license=find_license(folder)), tensors
    require(names, "tokenizer.json")
    check_tokenizer(folder)
    text = text_fields(config)
    vocab_size = text.get_count("vocab_size", high=1 << 24)
    hidden_size = text.get_count("hidden_size", "n_embd", "d_model", "hidden_dim", high=1 << 20)
    num_layers = text.get_count("num_hidden_layers", "n_layer", "num_layers", high=4096)
    num_heads = text.get_count("num_attention_heads", "n_head", "num_heads", high=1 << 16)
    layer_types = text.words("layer_types", most=4096)
    if layer_types and len(layer_types) != num_layers:
        raise ModelRejected(f"config.json: {len(layer_types)} layer_types, {num_layers} layers")
    check_embedding(tensors, vocab_size, hidden_size)
    weights_bytes = sum(tensor.end - tensor.begin for tensor in tensors)
    stored = _read_stored(folder, files, config)
    facts = ModelFacts(
        format="safetensors",
        architecture=(config.words("architectures", most=16) or [""])[0],
        model_type=config.find_word("model_type"),
        dtype=_dtype(config, text, _without(tensors, stored)),
        num_parameters=_num_parameters(tensors, stored),
        context_length=context_length(text),
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=text.find_count("num_key_value_heads", high=1 << 16) or num_heads,
        head_dim=text.find_count("head_dim", high=1 << 16) or max(1, hidden_size // num_heads),
        weights_bytes=weights_bytes,
        footprint_bytes=0,
        tied=_is_tied(tensors, stored),
        has_tokenizer=True,
        has_chat_template=has_chat_template(folder, names),
        files=files,
        layer_types=layer_types,
        sliding_window=sliding_window(text),
        is_encoder_decoder=config.flag("is_encoder_decoder"),
        quantization=_quantization(config),
        license=find_license(folder),
    )
    sizes = Sizes(folder, text, tensors, stored, read_tower(config))
    return with_costs(facts, sizes), tensors


def _dtype(config: Fields, text: Fields, tensors: list[Tensor]) -> str:
    """As `dtype="auto"` of Transformers: what the config says, else what most weights are in."""
    for fields in (config, text):
        for name in ("dtype", "torch_dtype"):
            said = fields.find_word(name).removeprefix("torch.")
            if said in ITEM_BYTES:
                return said
            if said and said != "auto":
                raise ModelRejected(f"{fields.file}: {name} {said!r} is not one a model loads in")
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.dtype] += tensor.num_elements
    return next((FLOATS[d] for d, _ in elements.most_common() if d in FLOATS), "float32")


def _quantization(config: Fields) -> str:
    section = config.find_section("quantization_config")
    if section is None:
        return ""
    bits = read_bits(config)
    return section.find_word("quant_method") or "unknown" if bits is None else f"{METHOD}-int{bits}"


def _read_stored(folder: Path, files: list[str], config: Fields) -> dict[str, Stored]:
    bits = read_bits(config)
    if bits is None:
        return {}
    return check_headers({file: read_header(folder / file) for file in files}, bits)


def _without(tensors: list[Tensor], stored: dict[str, Stored]) -> list[Tensor]:
    """Those that are not quantized."""
    parts = {part.name for one in stored.values() for part in (one.q, one.scale)}
    return [tensor for tensor in tensors if tensor.name not in parts]


def _num_parameters(tensors: list[Tensor], stored: dict[str, Stored]) -> int:
    """A tied head that is quantized counts once, as the embedding."""
    plain = sum(tensor.num_elements for tensor in _without(tensors, stored))
    return plain + sum(math.prod(one.shape) for one in stored.values() if not one.is_tied)


def _is_tied(tensors: list[Tensor], stored: dict[str, Stored]) -> bool:
    if stored:
        return any(one.is_tied for one in stored.values())
    return not any(tensor.name.endswith(HEADS) for tensor in tensors)
