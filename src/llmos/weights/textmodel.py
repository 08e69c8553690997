"""What a folder says of a model of text beside its weights, whatever these are in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from llmos.errors import ModelRejected
from llmos.weights.jsonfile import Fields, read_object
from llmos.weights.limits import MAX_CONFIG_BYTES, MAX_TOKENIZER_BYTES
from llmos.weights.quantizable import EMBEDDINGS
from llmos.weights.safetensors import Tensor


def check_tokenizer(folder: Path) -> None:
    """Raises ModelRejected: `tokenizer.json` is none."""
    model = read_object(folder / "tokenizer.json", MAX_TOKENIZER_BYTES).get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise ModelRejected("tokenizer.json: has no model with a vocab")


def context_length(text: Fields) -> int:
    """Positions the model knows. Raises ModelRejected."""
    return text.get_count(
        "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", high=1 << 30
    )


def sliding_window(text: Fields) -> int | None:
    """Tokens that a layer with a window looks back; None: it has no such layers."""
    if text.values.get("use_sliding_window") is False:
        return None
    return text.find_count("sliding_window", high=1 << 30)


def has_chat_template(folder: Path, names: list[str]) -> bool:
    """In a file of its own, or in the tokenizer's configuration."""
    if "chat_template.jinja" in names or "chat_template.json" in names:
        return True
    if "tokenizer_config.json" not in names:
        return False
    config = read_object(folder / "tokenizer_config.json", MAX_CONFIG_BYTES)
    return bool(config.get("chat_template"))


def check_embedding(tensors: Iterable[Tensor], vocab_size: int, hidden_size: int) -> None:
    """The one tensor whose shape every architecture derives from the config alike. Raises
    ModelRejected."""
    for tensor in tensors:
        if not tensor.name.endswith(EMBEDDINGS) or len(tensor.shape) != 2:
            continue
        if tensor.name.count(".") > 3:  # a tower of its own (vision, audio), with sizes of its own
            continue
        if tensor.shape[0] < vocab_size:
            raise ModelRejected(
                f"config.json: vocab_size {vocab_size}, but {tensor.name} has "
                f"{tensor.shape[0]} rows"
            )
        if tensor.name.endswith("embed_tokens.weight") and tensor.shape[1] > hidden_size:
            raise ModelRejected(
                f"config.json: hidden_size {hidden_size}, but {tensor.name} is "
                f"{tensor.shape[1]} wide"
            )
