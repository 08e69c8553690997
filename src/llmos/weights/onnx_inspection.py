"""A folder with an ONNX file as facts about its model."""

from __future__ import annotations

from pathlib import Path

import msgspec

from llmos.errors import ModelRejected
from llmos.weights.card import find_license
from llmos.weights.facts import ModelFacts
from llmos.weights.footprint import LIBRARY_BYTES, TABLES_PER_TOKENIZER_BYTE
from llmos.weights.items import item_facts
from llmos.weights.itemscratch import item_scratch_bytes
from llmos.weights.jsonfile import Fields, read_object
from llmos.weights.limits import MAX_CONFIG_BYTES
from llmos.weights.onnx import OnnxHeader, read_header

SUFFIX = ".onnx"
FORMAT = "onnx"

SILERO = "SileroVAD"
"""Finds where somebody speaks. Of its fifth version: it keeps one state, and is told the rate."""

_SILERO_INPUTS, _SILERO_OUTPUTS = {"input", "state", "sr"}, {"output", "stateN"}
_TEXT_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


def select_onnx(names: list[str]) -> str | None:
    """The one ONNX file among a model's files; None: there is none. Raises ModelRejected."""
    found = [name for name in names if name.lower().endswith(SUFFIX)]
    if len(found) > 1:
        listed = ", ".join(name[:80] for name in found[:8])
        raise ModelRejected(f"{len(found)} ONNX files, each a model; leave one: {listed}")
    return found[0] if found else None


def inspect_onnx(folder: Path, names: list[str], name: str) -> ModelFacts:
    """Facts of the file `name`. Raises ModelRejected."""
    header = read_header(folder / name)
    if set(header.inputs) == _SILERO_INPUTS and set(header.outputs) == _SILERO_OUTPUTS:
        facts = _sound_facts(header, name)
    elif "config.json" in names:
        facts = _text_facts(folder, names, header, name)
    else:
        said = ", ".join(header.inputs)[:200]
        what = f"nothing says what it is for (no config.json; it takes {said})"
        raise ModelRejected(f"{name}: {what}")
    return msgspec.structs.replace(facts, license=find_license(folder))


def _text_facts(folder: Path, names: list[str], header: OnnxHeader, name: str) -> ModelFacts:
    """As its configuration says: an export keeps the one it had."""
    config = Fields("config.json", read_object(folder / "config.json", MAX_CONFIG_BYTES))
    facts = item_facts(folder, names, config, files=[name], tensors=[])
    if "input_ids" not in header.inputs or not set(header.inputs) <= _TEXT_INPUTS:
        said = ", ".join(header.inputs)[:200]
        raise ModelRejected(f"{name}: a model that takes {said} is not supported")
    tokenizer = folder / "tokenizer.json"
    if "tokenizer.json" not in names:
        raise ModelRejected("tokenizer.json: missing")
    scratch = item_scratch_bytes(facts.hidden_size, facts.vocab_size, 4)
    tables = LIBRARY_BYTES + TABLES_PER_TOKENIZER_BYTE * tokenizer.stat().st_size
    return msgspec.structs.replace(
        facts,
        format=FORMAT,
        dtype="",
        num_parameters=header.num_parameters,
        weights_bytes=header.size_bytes,
        footprint_bytes=3 * header.size_bytes + scratch + tables,
        loads={},
    )


def _sound_facts(header: OnnxHeader, name: str) -> ModelFacts:
    return ModelFacts(
        format=FORMAT,
        architecture=SILERO,
        model_type="silero_vad",
        dtype="",
        num_parameters=header.num_parameters,
        context_length=1 << 24,
        vocab_size=1,
        hidden_size=128,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=1,
        weights_bytes=header.size_bytes,
        footprint_bytes=3 * header.size_bytes + LIBRARY_BYTES,
        tied=True,
        has_tokenizer=False,
        has_chat_template=False,
        files=[name],
        keeps_kv=False,
    )
