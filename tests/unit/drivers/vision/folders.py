"""Tiny folders of models that see, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.drivers.encoder.media import save_random, write_json
from tests.unit.drivers.tiny import BASE, byte_fallback_tokenizer

FAMILIES = ("llava", "llava-siglip", "qwen2-vl", "qwen2.5-vl")
IMAGE = "<image>"
TEMPLATE = (  # Qwen's own has something between two images as well
    "{% for m in messages %}{{ m['role'] }}:{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}(<image>){% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
CLIP: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 28,
    "patch_size": 7,
}
QWEN_2: dict[str, Any] = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2}
QWEN_2_5: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "out_hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "fullatt_block_indexes": [1],
    "window_size": 28,
}
PATCHES: dict[str, Any] = {"patch_size": 7, "spatial_merge_size": 2, "temporal_patch_size": 2}


def write_words(folder: Path) -> int:
    """A tokenizer and a template; the token of an image."""
    tokenizer = byte_fallback_tokenizer()
    tokenizer.add_special_tokens([IMAGE])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return int(tokenizer.token_to_id(IMAGE))


def make_seeing(folder: Path, family: str, **vision: Any) -> Path:
    """A folder of one of `FAMILIES`; `vision`: other sizes of its tower."""
    folder.mkdir()
    token_id = write_words(folder)
    text = BASE | {"vocab_size": token_id + 4}
    make = _llava if "llava" in family else _qwen
    model, settings = make(family, text, token_id, vision)
    save_random(folder, model, 0.3)
    write_json(folder / "preprocessor_config.json", settings)
    return folder


def _llava(
    family: str, text: dict[str, Any], token_id: int, sizes: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    import transformers

    is_siglip = family.endswith("siglip")
    vision: Any = transformers.SiglipVisionConfig if is_siglip else transformers.CLIPVisionConfig
    config = transformers.LlavaConfig(
        vision_config=vision(**CLIP | sizes),
        text_config=transformers.LlamaConfig(**text),
        image_token_id=token_id,
        vision_feature_select_strategy="full" if is_siglip else "default",
    )
    edge = (CLIP | sizes)["image_size"]
    settings: dict[str, Any] = {"image_processor_type": "CLIPImageProcessor"}
    settings |= {"size": {"shortest_edge": edge}, "crop_size": {"height": edge, "width": edge}}
    if is_siglip:
        settings = {"image_processor_type": "SiglipImageProcessor"}
        settings |= {"size": {"height": 28, "width": 28}}
    return transformers.LlavaForConditionalGeneration(config), settings


def _qwen(
    family: str, text: dict[str, Any], token_id: int, sizes: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    import transformers

    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    is_newer = family == "qwen2.5-vl"
    names = ("Qwen2_5_VL", QWEN_2_5) if is_newer else ("Qwen2VL", QWEN_2)
    config = getattr(transformers, f"{names[0]}Config")(
        text_config=text | {"rope_parameters": rope, "head_dim": 8},
        vision_config=names[1] | PATCHES | sizes,
        image_token_id=token_id,
    )
    model = getattr(transformers, f"{names[0]}ForConditionalGeneration")(config)
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 7,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "min_pixels": 28 * 28,
        "max_pixels": 56 * 56,
    }
    return model, settings
