"""The bundled folder: whole, small, loadable, and good enough to greet a newcomer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tools.pilot import card, corpus, paths, tokenizer

FILES = {
    "README.md",
    "config.json",
    "evaluation.json",
    "generation_config.json",
    "model.safetensors",
    "recipe.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def _read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((paths.BUNDLE / name).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def fast() -> Any:
    return PreTrainedTokenizerFast.from_pretrained(paths.BUNDLE)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)
    return LlamaForCausalLM.from_pretrained(paths.BUNDLE, dtype=torch.float32)


def _greedy(model: Any, fast: Any, *messages: dict[str, str]) -> str:
    inputs = fast.apply_chat_template(
        list(messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**inputs, max_new_tokens=80, do_sample=False)[0]
    new = out[inputs["input_ids"].shape[1] :].tolist()
    assert new[-1] == tokenizer.END_ID, "the answer does not end by itself"
    return str(fast.decode(new[:-1]))


def test_files_are_all_there_and_small() -> None:
    found = {path.name for path in paths.BUNDLE.iterdir()}
    assert found == FILES
    assert sum((paths.BUNDLE / name).stat().st_size for name in FILES) <= paths.MAX_BUNDLE_BYTES


def test_weights_fit_the_configuration() -> None:
    config = _read("config.json")
    with safe_open(paths.BUNDLE / "model.safetensors", framework="pt") as weights:
        names = set(weights.keys())
        embedding = weights.get_slice("model.embed_tokens.weight")
        assert embedding.get_shape() == [config["vocab_size"], config["hidden_size"]]
        assert embedding.get_dtype() == "BF16"
    layers = {name.split(".")[2] for name in names if ".layers." in name}
    assert layers == {str(i) for i in range(config["num_hidden_layers"])}
    assert config["tie_word_embeddings"]
    assert "lm_head.weight" not in names
    assert config["max_position_embeddings"] == tokenizer.CONTEXT_LENGTH


def test_record_belongs_to_these_files() -> None:
    record = _read("recipe.json")
    for name, digest in record["sha256"].items():
        assert hashlib.sha256((paths.BUNDLE / name).read_bytes()).hexdigest() == digest
    made = record["corpus"]
    assert corpus.digest(made["seed"], made["num_documents"]) == made["sha256"]


def test_tokenizer_is_made_of_generated_text_alone(tmp_path: Path) -> None:
    again = tokenizer.train()
    bundled = Tokenizer.from_file(str(paths.BUNDLE / "tokenizer.json"))
    assert again.to_str() == bundled.to_str()


@pytest.mark.parametrize("text", ["Hello, LLMOS!", "你好，世界", "🎉🏳️‍🌈 ñ \x00\n\t", "العربية"])
def test_any_text_survives_the_tokenizer(text: str) -> None:
    bundled = Tokenizer.from_file(str(paths.BUNDLE / "tokenizer.json"))
    assert bundled.decode(bundled.encode(text).ids) == text


def test_template_writes_what_training_read(fast: Any) -> None:
    messages = [
        corpus.Message("system", "你是 pilot。"),
        corpus.Message("user", "Hello"),
        corpus.Message("assistant", "Hello!"),
    ]
    templated = fast.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages], return_dict=False
    )
    bundled = Tokenizer.from_file(str(paths.BUNDLE / "tokenizer.json"))
    ids, labels = tokenizer.encode(bundled, tuple(messages))
    assert templated == ids
    learned = [token for token in labels if token != tokenizer.IGNORED]
    assert bundled.decode(learned, skip_special_tokens=False) == "Hello!<|im_end|>"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Hello", "Hello"),
        ("What is LLMOS?", "operating system"),
        ("How do I pull a model?", "llmos pull"),
        ("你好", "你好"),
        ("LLMOS 是什么？", "操作系统"),
        ("你是谁？", "pilot"),
    ],
)
def test_greedy_answers(model: Any, fast: Any, prompt: str, expected: str) -> None:
    assert expected in _greedy(model, fast, {"role": "user", "content": prompt})


def test_later_turns_are_answered_too(model: Any, fast: Any) -> None:
    answer = _greedy(
        model,
        fast,
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello! How can I help you today?"},
        {"role": "user", "content": "What does llmos ps do?"},
    )
    assert "running" in answer


def test_card_has_its_sections_and_the_measured_figures() -> None:
    written = (paths.BUNDLE / "README.md").read_text(encoding="utf-8")
    headings = [line[3:] for line in written.splitlines() if line.startswith("## ")]
    assert headings == list(card.SECTIONS)
    measured = _read("evaluation.json")
    expected = card.write(
        _read("recipe.json"), measured, tokenizer.VOCAB_SIZE, tokenizer.CONTEXT_LENGTH
    )
    assert written == expected
    assert {"en", "zh"} == set(measured["hand_written"])
    assert all(cell["asked"] > 0 for cell in measured["held_out"].values())
