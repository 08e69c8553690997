"""Models that read images beside text, and where a folder tells of their language model."""

from __future__ import annotations

import enum
from typing import Any

from llmos.weights.jsonfile import Fields


class Family(enum.StrEnum):
    """`FIXED`: every image in one size, as LLaVA has them. `TILED`: in as many patches as its own
    size asks for, with places in two dimensions, as Qwen2-VL has them."""

    FIXED = "fixed"
    TILED = "tiled"


SEEING = {
    "LlavaForConditionalGeneration": Family.FIXED,
    "Qwen2VLForConditionalGeneration": Family.TILED,
    "Qwen2_5_VLForConditionalGeneration": Family.TILED,
}
"""By architecture."""

_UNSAID: dict[str, dict[str, Any]] = {
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
    },
}
"""What Transformers takes a language model inside another one to be, where a folder does not say:
LLaVA's folders tell what is unusual only."""


def text_fields(config: Fields) -> Fields:
    """Of the language model: a section of its own, or the whole where it is nothing else."""
    section = config.find_section("text_config")
    if section is None:
        return config
    unsaid = _UNSAID.get(section.find_word("model_type"), {})
    return Fields(section.file, unsaid | section.values)
