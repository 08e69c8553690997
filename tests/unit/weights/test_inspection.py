from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import ModelRejected
from llmos.weights import inspect
from tests.unit.model_folder import make_model, make_sharded, safetensors_bytes


def test_the_real_model(test_data: Path) -> None:
    facts = inspect(test_data / "models" / "stories260k")
    assert facts.architecture == "LlamaForCausalLM"
    assert facts.num_parameters == 260_032
    assert (facts.vocab_size, facts.context_length) == (512, 512)
    assert facts.kv_bytes_per_token == 2 * 5 * 4 * 16 * 4
    assert facts.weights_bytes == 260_032 * 4
    assert facts.footprint_bytes > facts.weights_bytes
    assert facts.tied
    assert not facts.has_chat_template


def test_a_real_folder_that_is_no_language_model(test_data: Path) -> None:
    with pytest.raises(ModelRejected, match=r"config\.json: vocab_size is missing"):
        inspect(test_data / "models" / "model2vec-64d")


def test_shards(tmp_path: Path) -> None:
    facts = inspect(make_sharded(tmp_path))
    assert facts.num_parameters == 48
    assert facts.files == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_card_template_and_types(tmp_path: Path) -> None:
    make_model(tmp_path, dtype=None, torch_dtype="bfloat16", layer_types=["sliding_attention"])
    (tmp_path / "README.md").write_text("---\nlanguage: zh\nlicense: mit\n---\n# 模型 🐼\n")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    facts = inspect(tmp_path)
    assert facts.license == "mit"
    assert facts.has_chat_template
    assert facts.dtype == "bfloat16"
    assert facts.layer_types == ["sliding_attention"]
    assert facts.kv_bytes_per_token == 2 * 1 * 1 * 16 * 2


def test_text_config_of_a_wrapped_model(tmp_path: Path) -> None:
    make_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    wrapped = {"architectures": ["WrapForConditionalGeneration"], "text_config": config}
    (tmp_path / "config.json").write_text(json.dumps(wrapped))
    facts = inspect(tmp_path)
    assert facts.architecture == "WrapForConditionalGeneration"
    assert facts.vocab_size == 8


def test_an_untied_head_and_a_quantized_model(tmp_path: Path) -> None:
    make_model(tmp_path, quantization_config={"quant_method": "gptq"})
    shapes = {"model.embed_tokens.weight": [8, 4], "lm_head.weight": [8, 4]}
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(shapes))
    facts = inspect(tmp_path)
    assert not facts.tied
    assert facts.quantization == "gptq"


def _remove(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, data: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(data)


def _config(**fields: Any) -> Callable[[Path], Any]:
    return lambda folder: make_model(folder, **fields)


INDEX = "model.safetensors.index.json"
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (_remove("config.json"), "config.json: missing"),
    "no tokenizer": (_remove("tokenizer.json"), "tokenizer.json: missing"),
    "no weights": (_remove("model.safetensors"), "model.safetensors: missing"),
    "pickle": (_write("pytorch_model.bin", b"\x80"), "pytorch_model.bin: a pickle"),
    "pickle in capitals": (_write("WEIGHTS.PT", b"\x80"), "WEIGHTS.PT: a pickle"),
    "config not JSON": (_write("config.json", b"{"), "config.json: not valid JSON"),
    "config not UTF-8": (_write("config.json", b"\xff\xfe{}"), "config.json: not valid JSON"),
    "config a list": (_write("config.json", b"[]"), "config.json: expected a JSON object"),
    "config deep": (_write("config.json", b"[" * 200_000), "config.json: nested too deeply"),
    "config huge": (_write("config.json", b" " * (5 << 20)), "config.json: larger than"),
    "config duplicate": (
        _write("config.json", b'{"vocab_size": 8, "vocab_size": 9}'),
        "config.json: .*duplicate key 'vocab_size'",
    ),
    "config long integer": (
        _write("config.json", b'{"vocab_size": ' + b"9" * 5000 + b"}"),
        "config.json: not valid JSON",
    ),
    "vocab a string": (_config(vocab_size="8"), "config.json: vocab_size must be an integer"),
    "vocab true": (_config(vocab_size=True), "config.json: vocab_size must be an integer"),
    "vocab negative": (_config(vocab_size=-1), "config.json: vocab_size must be an integer"),
    "vocab NaN": (_config(vocab_size=float("nan")), "config.json: vocab_size must be"),
    "vocab over weights": (_config(vocab_size=9), "vocab_size 9, but .* has 8 rows"),
    "hidden under weights": (_config(hidden_size=3), "hidden_size 3, but .* is 4 wide"),
    "no layers": (_config(num_hidden_layers=None), "num_hidden_layers is missing"),
    "no context": (_config(max_position_embeddings=None), "max_position_embeddings is missing"),
    "layer types short": (_config(layer_types=["full"] * 2), "2 layer_types, 1 layers"),
    "architecture a number": (_config(architectures=[3]), "architectures must be"),
    "architecture surrogate": (_config(architectures=["\ud800"]), "architectures must be"),
    "strange dtype": (_config(dtype="int8"), "dtype 'int8'"),
    "text_config a list": (_config(text_config=[]), "text_config must be an object"),
    "tokenizer cut off": (_write("tokenizer.json", b'{"model": {"vo'), "tokenizer.json: not valid"),
    "tokenizer empty": (_write("tokenizer.json", b"{}"), "tokenizer.json: has no model"),
    "tokenizer_config": (_write("tokenizer_config.json", b"3"), "tokenizer_config.json: expected"),
    "link out": (lambda f: (f / "x.json").symlink_to("/etc/passwd"), "x.json: a symbolic link"),
    "folder out": (lambda f: (f / "sub").symlink_to("/etc"), "sub: a symbolic link"),
    "named pipe": (lambda f: os.mkfifo(f / "pipe.json"), "pipe.json: not a regular file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_are_refused_by_file_and_reason(name: str, tmp_path: Path) -> None:
    make_model(tmp_path)
    damage, reason = BROKEN[name]
    damage(tmp_path)
    with pytest.raises(ModelRejected, match=reason):
        inspect(tmp_path)


BROKEN_SHARDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "shard missing": (_remove("model-00002-of-00002.safetensors"), "model-00002.*: missing, but"),
    "escape": (_write(INDEX, b'{"weight_map": {"a": "../x.safetensors"}}'), "names a bad file"),
    "absolute": (_write(INDEX, b'{"weight_map": {"a": "/x.safetensors"}}'), "names a bad file"),
    "not a map": (_write(INDEX, b'{"weight_map": ["a"]}'), "weight_map must be an object"),
    "wrong shard": (
        _write(
            INDEX,
            b'{"weight_map": {"model.embed_tokens.weight": "model-00002-of-00002.safetensors"}}',
        ),
        "is not in the shard it is said to be in",
    ),
    "twice": (
        lambda f: (f / "model-00002-of-00002.safetensors").write_bytes(
            (f / "model-00001-of-00002.safetensors").read_bytes()
        ),
        "is in another shard too",
    ),
}


@pytest.mark.parametrize("name", BROKEN_SHARDS)
def test_broken_shards(name: str, tmp_path: Path) -> None:
    make_sharded(tmp_path)
    damage, reason = BROKEN_SHARDS[name]
    damage(tmp_path)
    with pytest.raises(ModelRejected, match=reason):
        inspect(tmp_path)


def test_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="not a folder"):
        inspect(tmp_path / "nothing")
