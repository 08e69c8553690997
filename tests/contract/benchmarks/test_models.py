from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks import models


def test_a_tokenizer_has_a_text_for_every_id(tmp_path: Path) -> None:
    models.write_tokenizer(tmp_path, 3000)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 3000
    text = next(models.sentences())
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.decode([2999]) == "~2999"
    assert max(tokenizer.encode(text).ids) < models.NUM_TRAINED


def test_a_model_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOS_BENCH_CACHE", str(tmp_path))
    sizes = models.SHAPES["60m-fp32"].config | {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 2200,
    }
    shape = models.Shape("LlamaConfig", "float32", sizes)
    monkeypatch.setitem(models.SHAPES, "tiny", shape)
    folder = models.folder("tiny")
    assert {p.name for p in folder.iterdir()} >= {"config.json", "model.safetensors"}
    monkeypatch.setattr(models, "make", lambda shape, into: pytest.fail("made again"))
    assert models.folder("tiny") == folder
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(("name", "low", "high"), [("60m", 50e6, 70e6), ("0.4b", 0.35e9, 0.45e9)])
def test_shapes_have_the_sizes_they_are_named_after(name: str, low: float, high: float) -> None:
    config = models.SHAPES[name].config
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    kv = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    per_layer = 2 * hidden * (hidden + kv) + 3 * hidden * config["intermediate_size"]
    assert low < layers * per_layer + config["vocab_size"] * hidden < high


def test_prompts_repeat_and_hold_no_special_token() -> None:
    prompt = models.tokens(128, 1, 16384)
    assert prompt == models.tokens(128, 1, 16384) != models.tokens(128, 2, 16384)
    assert len(prompt) == 128
    assert all(256 <= token < 16384 for token in prompt)
