"""A folder with an OpenVINO model of text as facts, as optimum-intel writes one."""

from __future__ import annotations

from pathlib import Path

from llmos.errors import ModelRejected
from llmos.weights.card import find_license
from llmos.weights.facts import ModelFacts
from llmos.weights.folder import OPENVINO, require
from llmos.weights.footprint import LIBRARY_BYTES, TABLES_PER_TOKENIZER_BYTE
from llmos.weights.jsonfile import Fields, read_object
from llmos.weights.limits import MAX_CONFIG_BYTES
from llmos.weights.openvino import IrHeader, read_ir
from llmos.weights.textmodel import (
    check_tokenizer,
    context_length,
    has_chat_template,
    sliding_window,
)

FORMAT = "openvino"
MODEL, WEIGHTS = f"{OPENVINO[0]}.xml", f"{OPENVINO[0]}.bin"

_FLOATS = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_QUANTIZED = {"i8": 8, "u8": 8, "i4": 4, "u4": 4, "nf4": 4, "f4e2m1": 4, "f8e4m3": 8, "f8e5m2": 8}
_INPUTS = {"input_ids", "attention_mask", "position_ids", "beam_idx"}


FOOTPRINT_FACTOR = 2.5
"""A matrix is there as it is in the file, and as it is computed with; 2.2 were measured."""

SCRATCH_BYTES = LIBRARY_BYTES + (128 << 20)
"""What a compiled model and its largest pass take."""


def select_openvino(names: list[str]) -> list[str]:
    """The files of the model among a folder's; empty: it has none."""
    return [name for name in (MODEL, WEIGHTS) if name in names] if MODEL in names else []


def inspect_openvino(folder: Path, names: list[str]) -> ModelFacts:
    """Raises ModelRejected."""
    for name in (WEIGHTS, "config.json", "tokenizer.json"):
        require(names, name)
    header = read_ir(folder / MODEL, folder / WEIGHTS)
    _check_inputs(header)
    check_tokenizer(folder)
    config = Fields("config.json", read_object(folder / "config.json", MAX_CONFIG_BYTES))
    text = config.find_section("text_config") or config
    hidden_size = text.get_count("hidden_size", "n_embd", "d_model", "hidden_dim", high=1 << 20)
    num_heads = text.get_count("num_attention_heads", "n_head", "num_heads", high=1 << 16)
    dtype, quantization = _dtype(header)
    tables = TABLES_PER_TOKENIZER_BYTE * (folder / "tokenizer.json").stat().st_size
    return ModelFacts(
        format=FORMAT,
        architecture=(config.words("architectures", most=16) or [""])[0],
        model_type=config.find_word("model_type"),
        dtype=dtype,
        num_parameters=_num_parameters(header),
        context_length=context_length(text),
        vocab_size=text.get_count("vocab_size", high=1 << 24),
        hidden_size=hidden_size,
        num_layers=text.get_count("num_hidden_layers", "n_layer", "num_layers", high=4096),
        num_heads=num_heads,
        num_kv_heads=text.find_count("num_key_value_heads", high=1 << 16) or num_heads,
        head_dim=text.find_count("head_dim", high=1 << 16) or max(1, hidden_size // num_heads),
        weights_bytes=header.weights_bytes,
        footprint_bytes=int(FOOTPRINT_FACTOR * header.weights_bytes) + SCRATCH_BYTES + tables,
        tied=False,
        has_tokenizer=True,
        has_chat_template=has_chat_template(folder, names),
        files=[MODEL, WEIGHTS],
        sliding_window=sliding_window(text),
        quantization=quantization,
        license=find_license(folder),
        kv_dtype="float32" if dtype == "float32" and not quantization else "float16",
    )


def _check_inputs(header: IrHeader) -> None:
    """A decoder with its state inside: what optimum's task `text-generation-with-past` makes."""
    said = ", ".join(header.inputs)[:200] or "nothing"
    if "input_ids" not in header.inputs or not set(header.inputs) <= _INPUTS:
        raise ModelRejected(f"{MODEL}: a model that takes {said} is not supported")
    if not header.num_states:
        raise ModelRejected(
            f"{MODEL}: keeps no keys and values; export it as text-generation-with-past"
        )


def _dtype(header: IrHeader) -> tuple[str, str]:
    """The float type that most weights are stored or scaled in; how they are quantized."""
    floats = {kind: n for kind, n in header.num_elements.items() if kind in _FLOATS}
    quantized = {kind: n for kind, n in header.num_elements.items() if kind in _QUANTIZED}
    dtype = _FLOATS[max(floats, key=lambda kind: floats[kind])] if floats else "float32"
    most = max(quantized, key=lambda kind: quantized[kind], default="")
    if not most or quantized[most] <= max(floats.values(), default=0):
        return dtype, ""
    return dtype, f"openvino-int{_QUANTIZED[most]}"


def _num_parameters(header: IrHeader) -> int:
    return sum(n for kind, n in header.num_elements.items() if kind in _FLOATS.keys() | _QUANTIZED)
