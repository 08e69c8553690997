"""What is to be seen in an image: token for token what the model's own `generate` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmos.drivers.catalog import choose
from llmos.weights import inspect
from tests.unit.drivers.encoder.folders import PIECES, bert_tokenizer, infer, load
from tests.unit.drivers.encoder.media import blob, png, save_random, write_json

VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
GPT2 = {
    "vocab_size": len(PIECES),
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "add_cross_attention": True,
    "is_decoder": True,
}
BERT = {
    "vocab_size": len(PIECES),
    "hidden_size": 32,
    "encoder_hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "sep_token_id": 3,
}
KIND = "image-to-text"


def make_captioner(folder: Path, family: str) -> Path:
    torch.manual_seed(4)
    if family == "blip":
        both = {"text_config": BERT, "vision_config": VIT | {"projection_dim": 32}}
        model = transformers.BlipForConditionalGeneration(transformers.BlipConfig(**both))
        processor = "BlipImageProcessor"
    else:
        config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
            transformers.ViTConfig(**VIT), transformers.GPT2Config(**GPT2)
        )
        config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
        model = transformers.VisionEncoderDecoderModel(config)
        model.generation_config.update(decoder_start_token_id=2, pad_token_id=0, eos_token_id=3)
        processor = "ViTImageProcessor"
    folder.mkdir()
    save_random(folder, model, 0.4)
    bert_tokenizer(folder)
    size = {"height": 32, "width": 32}
    write_json(
        folder / "preprocessor_config.json", {"image_processor_type": processor, "size": size}
    )
    return folder


def expected(
    folder: Path, family: str, image: bytes, prompt: str = "", **how: Any
) -> tuple[str, int]:
    """The text, and how many tokens of it the model has made."""
    import io

    from PIL import Image

    cls = (
        transformers.BlipForConditionalGeneration
        if family == "blip"
        else transformers.VisionEncoderDecoderModel
    )
    model = cls.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(Image.open(io.BytesIO(image)).convert("RGB"), return_tensors="pt")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    num_given = len(tokenizer(prompt, add_special_tokens=False).input_ids)
    if prompt and family == "blip":  # as its processor makes it: between the tokenizer's own two
        how["input_ids"] = tokenizer(prompt, return_tensors="pt").input_ids
    elif prompt:
        given = tokenizer(prompt, add_special_tokens=False).input_ids
        how["decoder_input_ids"] = torch.tensor([[2, *given]])
    with torch.inference_mode():
        ids = model.generate(pixel_values=pixels.pixel_values, do_sample=False, **how)[0]
    text = tokenizer.decode(ids[1:], skip_special_tokens=True).strip()
    return text, len(ids) - 1 - num_given


@pytest.mark.parametrize("family", ["vit-gpt2", "blip"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_it_writes_what_generate_writes(family: str, num_beams: int, tmp_path: Path) -> None:
    folder = make_captioner(tmp_path / "model", family)
    images = [png(40, 30, seed=1), png(32, 64, seed=2), png(10, 10, seed=3)]
    blobs = [blob(tmp_path, f"{i}.png", image) for i, image in enumerate(images)]
    made = infer(
        folder,
        KIND,
        [{"blob": i} for i in range(3)],
        params={"max_new_tokens": 10, "num_beams": num_beams},
        blobs=blobs,
        spill=str(tmp_path / "spill"),
    )
    for image, output in zip(images, made, strict=True):
        assert output.error is None, output.error
        wanted = expected(folder, family, image, max_new_tokens=10, num_beams=num_beams)
        assert (output.value["text"], output.value["num_tokens"]) == wanted
    assert len({output.value["text"] for output in made}) > 1


RULES: list[dict[str, Any]] = [
    {},
    {"min_new_tokens": 4, "no_repeat_ngram_size": 2},
    {"length_penalty": 2.0, "min_length": 6},
    {"max_length": 9, "early_stopping": True},
]
PROMPTS = ["a cat", "", "the mat is good, and", "where"]


@pytest.mark.parametrize("family", ["vit-gpt2", "blip"])
@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_it_goes_on_from_a_text_as_generate_does(
    family: str, num_beams: int, rules: dict[str, Any], tmp_path: Path
) -> None:
    """Several prompts of unequal lengths in one batch, and an image without one among them."""
    folder = make_captioner(tmp_path / "model", family)
    own = {} if "max_length" in rules else {"max_new_tokens": 7}
    where = folder / "generation_config.json"
    said = json.loads(where.read_text()) if where.exists() else {}
    write_json(where, said | rules)
    image = png(40, 30, seed=1)
    items = [{"blob": 0, "text": text} if text else {"blob": 0} for text in PROMPTS]
    made = infer(
        folder,
        KIND,
        items,
        params={"num_beams": num_beams, **own},
        blobs=[blob(tmp_path, "a.png", image)],
        spill=str(tmp_path / "spill"),
    )
    for text, output in zip(PROMPTS, made, strict=True):
        assert output.error is None, output.error
        wanted = expected(folder, family, image, text, num_beams=num_beams, **rules, **own)
        assert (output.value["text"], output.value["num_tokens"]) == wanted, text
        assert output.value["text"].startswith(text.split(",")[0])


@pytest.mark.parametrize("family", ["vit-gpt2", "blip"])
def test_a_text_that_cannot_be_gone_on_from_fails_alone(family: str, tmp_path: Path) -> None:
    folder = make_captioner(tmp_path / "model", family)
    texts = ["cat", "", 7, "cat " * 38, "cat " * 39, "\ud800"]
    made = infer(
        folder,
        KIND,
        [{"blob": 0, "text": text} for text in texts],
        blobs=[blob(tmp_path, "a.png", png(8, 8))],
        spill=str(tmp_path / "spill"),
    )
    codes = [one.error and one.error.code for one in made]
    bad, long = "invalid_request", "context_length_exceeded"
    assert codes == [None, bad, bad, None, long, bad]
    assert made[3].value["num_tokens"] == 1


@pytest.mark.parametrize("family", ["vit-gpt2", "blip"])
def test_its_folder_is_read(family: str, tmp_path: Path) -> None:
    folder = make_captioner(tmp_path / "model", family)
    facts = inspect(folder)
    assert (facts.vocab_size, facts.num_layers) == (len(PIECES), 2)
    assert facts.is_encoder_decoder
    driver = load(folder)
    assert facts.footprint_bytes >= driver.memory().weights_bytes
    assert choose(facts).kinds == [KIND]
