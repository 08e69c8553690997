"""Tiny folders of models that see, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.drivers.encoder.media import save_random, write_json
from tests.unit.drivers.tiny import BASE, byte_fallback_tokenizer

FAMILIES = (
    *("llava", "llava-siglip", "qwen2-vl", "qwen2.5-vl", "qwen3-vl"),
    *("idefics3", "smolvlm"),
)
IMAGE = "<image>"
AROUND = [
    *("<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
    *("<row_1_col_1>", "<row_1_col_2>", "<row_2_col_1>"),
]
"""Words of some families; of `<row_2_col_2>` the tokenizer has letters only."""
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
QWEN_3: dict[str, Any] = {
    "depth": 3,
    "hidden_size": 32,
    "out_hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0, 1],
}
PATCHES: dict[str, Any] = {"patch_size": 7, "spatial_merge_size": 2, "temporal_patch_size": 2}


def write_words(folder: Path) -> int:
    """A tokenizer and a template; the token of an image."""
    tokenizer = byte_fallback_tokenizer()
    tokenizer.add_special_tokens([IMAGE, *AROUND])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return int(tokenizer.token_to_id(IMAGE))


def make_seeing(folder: Path, family: str, **vision: Any) -> Path:
    """A folder of one of `FAMILIES`; `vision`: other sizes of its tower."""
    folder.mkdir()
    token_id = write_words(folder)
    text = BASE | {"vocab_size": token_id + 8, "max_position_embeddings": 512}
    make = _llava if "llava" in family else _qwen if "qwen" in family else _idefics
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
    names = {
        "qwen2-vl": ("Qwen2VL", QWEN_2),
        "qwen2.5-vl": ("Qwen2_5_VL", QWEN_2_5),
        "qwen3-vl": ("Qwen3VL", QWEN_3),
    }[family]
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


def _idefics(
    family: str, text: dict[str, Any], token_id: int, sizes: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Squares of 4 tokens; 2 x 2 of them at most."""
    import transformers

    name = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[family]
    vision = CLIP | sizes
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision,
        text_config=text | {"model_type": "llama"},
        image_token_id=token_id,
        scale_factor=2,
    )
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    edge = vision["image_size"]
    settings = {
        "image_processor_type": f"{name}ImageProcessor",
        "size": {"longest_edge": 2 * edge},
        "max_image_size": {"longest_edge": edge},
        "do_image_splitting": True,
    }
    return model, settings
