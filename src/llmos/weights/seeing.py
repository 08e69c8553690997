"""Models that read images beside text: where a folder tells of their language model, and what
looking at an image takes."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import msgspec

from llmos.errors import ModelRejected
from llmos.weights.jsonfile import Fields, read_object
from llmos.weights.limits import MAX_CONFIG_BYTES


class Family(enum.StrEnum):
    """`FIXED`: every image in one size, as LLaVA has them. `TILED`: in as many patches as its own
    size asks for, with places in two dimensions, as Qwen2-VL has them. `SPLIT`: cut into squares of
    one size and seen once more as a whole, with words around each, as Idefics3 has them."""

    FIXED = "fixed"
    TILED = "tiled"
    SPLIT = "split"


SEEING = {
    "LlavaForConditionalGeneration": Family.FIXED,
    "Qwen2VLForConditionalGeneration": Family.TILED,
    "Qwen2_5_VLForConditionalGeneration": Family.TILED,
    "Qwen3VLForConditionalGeneration": Family.TILED,
    "Idefics3ForConditionalGeneration": Family.SPLIT,
    "SmolVLMForConditionalGeneration": Family.SPLIT,
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


IMAGE_TOKENS = 1280
"""Of what a tower reads in one go at most, an image or a part of one, whatever a folder's processor
allows: what Qwen2-VL's own takes where its folder says nothing. Its work grows with the square."""

SPLIT_TOKENS = 4096
"""Of all parts of one image together: Idefics3 has 17 of 169."""

REQUEST_TOKENS = 8 * IMAGE_TOKENS
"""Of all images of a request."""

_IDEFICS_3 = {
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "patch_size": 32,
    "image_size": 224,
}
_TOWERS: dict[str, dict[str, Any]] = {
    "idefics3": _IDEFICS_3,
    "smolvlm": _IDEFICS_3,
    "qwen3_vl": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "depth": 27,
        "patch_size": 16,
        "deepstack_visual_indexes": [8, 16, 24],
    },
    "qwen2_vl": {"embed_dim": 1280, "depth": 32, "patch_size": 14},
    "qwen2_5_vl": {"hidden_size": 3584, "intermediate_size": 3420, "depth": 32, "patch_size": 14},
    "clip_vision_model": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "image_size": 336,
    },
    "siglip_vision_model": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "patch_size": 16,
        "image_size": 224,
    },
}
"""What Transformers takes a tower to be where a folder does not say."""

_MOST = 1 << 16
"""Of any size of a tower."""


class Tower(msgspec.Struct, frozen=True):
    """What goes through a vision tower at most, in one go: `num_patches` of `patch_size` numbers
    each, `width` and `widest` numbers of each in a layer, `num_kept` layers' results at once; and
    `num_tokens` of `out_width` that come out. `image_size`: the side of an image, where all have
    one size; else 0."""

    num_patches: int
    patch_size: int
    width: int
    widest: int
    num_kept: int
    num_tokens: int
    out_width: int
    image_size: int = 0


def read_tower(config: Fields) -> Tower | None:
    """None: it reads no images. Raises ModelRejected."""
    architecture = (config.words("architectures", most=16) or [""])[0]
    family = SEEING.get(architecture)
    if family is None:
        return None
    section = config.find_section("vision_config")
    said = section.values if section is not None else {}
    kind = config.find_word("model_type")
    if family is Family.FIXED:
        kind = str(said.get("model_type", "clip_vision_model"))
    vision = Fields("config.json: vision_config", _TOWERS.get(kind, {}) | said)
    out_width = text_fields(config).get_count("hidden_size", high=1 << 20)
    width = vision.get_count("embed_dim", "hidden_size", high=_MOST)
    widest = vision.find_count("intermediate_size", high=8 * _MOST)
    patch = vision.get_count("patch_size", high=_MOST)
    num_kept, frames, image_size = 1, 1, 0
    if family is Family.TILED:
        per_token = (vision.find_count("spatial_merge_size", high=64) or 2) ** 2
        num_patches = IMAGE_TOKENS * per_token
        frames = vision.find_count("temporal_patch_size", high=64) or 2
        out_width *= 1 + _num_deep(vision)
    else:
        image_size = vision.get_count("image_size", high=_MOST)
        num_patches, per_token = (image_size // patch) ** 2, 1
        if not num_patches:
            raise ModelRejected(f"{vision.file}: patch_size {patch} is over image_size")
        if family is Family.FIXED:
            num_patches += 1
            num_kept += vision.get_count("num_hidden_layers", high=4096)
        else:
            per_token = (config.find_count("scale_factor", high=64) or 2) ** 2
    if num_patches < per_token:
        raise ModelRejected(f"{config.file}: the tower has no token for {num_patches} patches")
    return Tower(
        num_patches=num_patches,
        patch_size=3 * frames * patch**2,
        width=width,
        widest=widest or width * (vision.find_count("mlp_ratio", high=64) or 4),
        num_kept=num_kept,
        num_tokens=num_patches // per_token,
        out_width=out_width,
        image_size=image_size,
    )


def _num_deep(vision: Fields) -> int:
    """Layers of the tower whose results go into early layers of the language model as well."""
    found = vision.values.get("deepstack_visual_indexes", [])
    if not isinstance(found, list) or len(found) > _MOST:
        raise ModelRejected(f"{vision.file}: deepstack_visual_indexes is no list of layers")
    return len(found)


def find_tower(folder: Path) -> Tower | None:
    """Of a model folder. Raises ModelRejected."""
    values = read_object(folder / "config.json", MAX_CONFIG_BYTES)
    return read_tower(Fields("config.json", values))


def text_fields(config: Fields) -> Fields:
    """Of the language model: a section of its own, or the whole where it is nothing else."""
    section = config.find_section("text_config")
    if section is None:
        return config
    unsaid = _UNSAID.get(section.find_word("model_type"), {})
    return Fields(section.file, unsaid | section.values)
