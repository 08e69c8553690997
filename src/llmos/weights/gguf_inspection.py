"""A GGUF file's header as facts about its model."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from llmos.errors import ModelRejected
from llmos.weights.card import find_license
from llmos.weights.facts import ModelFacts
from llmos.weights.footprint import CONTEXT_TOKENS, ROWS, Shape, footprint_bytes, scratch_bytes
from llmos.weights.footprint import widest as widest_of
from llmos.weights.ggml import PLAIN
from llmos.weights.gguf import Array, GGUFHeader, GGUFTensor, read_header
from llmos.weights.jsonfile import Fields

SUFFIX = ".gguf"
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
TOKENS, TEMPLATE = "tokenizer.ggml.tokens", "tokenizer.chat_template"

_SPLIT = re.compile(r".*-\d{5}-of-\d{5}\.gguf")
_STRING = 8
_NUMBER_KINDS = frozenset(range(8)) | {10, 11, 12}
_VOCABULARY = {
    "tokenizer.ggml.scores": _NUMBER_KINDS,
    "tokenizer.ggml.token_type": frozenset({5}),
}
"""Arrays with an element for each token, and the types those may have."""


def select_file(names: list[str]) -> str | None:
    """The one GGUF file among a model's files; None: there is none. Raises ModelRejected."""
    found = [name for name in names if name.lower().endswith(SUFFIX)]
    for name in found:
        if _SPLIT.fullmatch(name.lower()):
            raise ModelRejected(
                f"{name}: is one part of several; merge them first (llama-gguf-split --merge)"
            )
    if len(found) > 1:
        listed = ", ".join(name[:80] for name in found[:8])
        raise ModelRejected(f"{len(found)} GGUF files, each a model; name one: {listed}")
    return found[0] if found else None


def inspect_gguf(folder: Path, name: str) -> ModelFacts:
    """Facts of the file `name`. Raises ModelRejected."""
    header = read_header(folder / name)
    about = Fields(name, header.values)
    architecture = about.find_word("general.architecture")
    if not architecture:
        raise ModelRejected(f"{name}: general.architecture is missing")
    _check_vocabulary(name, header)
    of_model = Fields(name, _numbers(header.values, architecture))

    def count(key: str, high: int) -> int:
        return of_model.get_count(f"{architecture}.{key}", high=high)

    def find(key: str, high: int) -> int | None:
        return of_model.find_count(f"{architecture}.{key}", high=high)

    hidden_size = count("embedding_length", 1 << 20)
    num_heads = find("attention.head_count", 1 << 16) or 1
    head_dim = max(1, hidden_size // num_heads)
    sizes = [find(f"attention.{which}_length", 1 << 16) or head_dim for which in ("key", "value")]
    kind = _main_type(header.tensors)
    facts = ModelFacts(
        format="gguf",
        architecture=architecture,
        model_type=architecture,
        dtype=PLAIN.get(kind, kind.lower()),
        num_parameters=sum(tensor.num_elements for tensor in header.tensors),
        context_length=count("context_length", 1 << 30),
        vocab_size=header.values[TOKENS].length,
        hidden_size=hidden_size,
        num_layers=count("block_count", 4096),
        num_heads=num_heads,
        num_kv_heads=find("attention.head_count_kv", 1 << 16) or num_heads,
        head_dim=max(sizes),
        weights_bytes=sum(tensor.size_bytes for tensor in header.tensors),
        footprint_bytes=0,
        tied=not any(tensor.name == HEAD for tensor in header.tensors),
        has_tokenizer=True,
        has_chat_template=isinstance(header.values.get(TEMPLATE), str),
        files=[name],
        sliding_window=find("attention.sliding_window", 1 << 30),
        quantization="" if kind in PLAIN else kind,
        license=find_license(folder) or _license(header),
        kv_dtype=kv_dtype(header.tensors),
    )
    _check_embedding(name, header.tensors, facts)
    size_bytes = _footprint_bytes(header, facts)
    return msgspec.structs.replace(facts, footprint_bytes=size_bytes)


def kv_dtype(tensors: list[GGUFTensor]) -> str:
    """The type keys and values are held in: as exact as the weights, at most float32."""
    return "float32" if {tensor.type for tensor in tensors} == {"F32"} else "float16"


def _check_vocabulary(name: str, header: GGUFHeader) -> None:
    tokens = header.values.get(TOKENS)
    if not isinstance(tokens, Array) or tokens.kind != _STRING or not tokens.length:
        raise ModelRejected(f"{name}: {TOKENS} is missing: it has no vocabulary")
    for key, kinds in _VOCABULARY.items():
        found = header.values.get(key)
        if found is None:
            continue
        if not isinstance(found, Array) or found.kind not in kinds or found.length != tokens.length:
            raise ModelRejected(f"{name}: {key} does not go with {tokens.length} tokens")


def _numbers(values: dict[str, Any], architecture: str) -> dict[str, Any]:
    """The architecture's own keys; of one number for each layer, the largest."""
    found = {}
    for key, value in values.items():
        if not key.startswith(f"{architecture}."):
            continue
        one = value
        if isinstance(value, Array) and value.values and value.kind not in {6, 7, 12}:
            one = max(value.values)
        found[key] = one
    return found


def _main_type(tensors: list[GGUFTensor]) -> str:
    """The type that most weights are in."""
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.type] += tensor.num_elements
    return elements.most_common(1)[0][0]


def _license(header: GGUFHeader) -> str:
    said = header.values.get("general.license")
    return "".join(c for c in said if c.isprintable())[:100] if isinstance(said, str) else ""


def _check_embedding(name: str, tensors: list[GGUFTensor], facts: ModelFacts) -> None:
    shape = next((tensor.shape for tensor in tensors if tensor.name == EMBEDDING), None)
    if shape is None:
        raise ModelRejected(f"{name}: {EMBEDDING} is missing")
    if shape != (facts.hidden_size, facts.vocab_size):
        raise ModelRejected(
            f"{name}: {EMBEDDING} is {list(shape)}, for {facts.vocab_size} tokens of "
            f"{facts.hidden_size}"
        )


def _footprint_bytes(header: GGUFHeader, facts: ModelFacts) -> int:
    """As `llmos.weights.footprint` counts, for an engine that may repack quantized weights while
    their file is still there."""
    shape = Shape(
        vocab_size=facts.vocab_size,
        hidden_size=facts.hidden_size,
        widest=widest_of([tensor.shape for tensor in header.tensors], facts.vocab_size),
        largest=max(tensor.num_elements for tensor in header.tensors),
        num_heads=facts.num_heads,
        head_dim=facts.head_dim,
        item_bytes=4,
    )
    context_length = min(facts.context_length, CONTEXT_TOKENS)
    repacked = facts.weights_bytes if facts.quantization else 0
    # the engine reads twice the tokens at once that the estimate counts with
    more = scratch_bytes(shape, ROWS, context_length)
    return more + footprint_bytes(
        facts.weights_bytes, repacked, header.size_bytes, shape, context_length
    )
