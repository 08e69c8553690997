from __future__ import annotations

from pathlib import Path

import pytest

from llmos.errors import ModelRejected
from llmos.registry.selection import scan, select_small, select_weights
from llmos.weights import inspect
from tests.unit.adapter_folder import make_bare
from tests.unit.model_folder import make_model
from tests.unit.openvino_file import make_openvino

REPOSITORY = [
    ".gitattributes", "README.md", "LICENSE", "USE_POLICY.md", "config.json", "tokenizer.json",
    "tokenizer.model", "merges.txt", "chat_template.jinja", "modeling_evil.py", "model.gguf",
    "pytorch_model.bin", "model.safetensors", "consolidated.safetensors", "onnx/model.onnx",
    "onnx/config.json", "original/params.json", "additional_chat_templates/tools.jinja",
    "additional_chat_templates/a/b.jinja", "logo.png",
]  # fmt: skip


def test_only_what_a_model_needs() -> None:
    assert select_small(REPOSITORY) == [
        "README.md", "LICENSE", "USE_POLICY.md", "config.json", "tokenizer.json",
        "tokenizer.model", "merges.txt", "chat_template.jinja",
        "additional_chat_templates/tools.jinja",
    ]  # fmt: skip
    assert select_weights(REPOSITORY, []) == ["model.safetensors"]


def test_shards_are_those_the_index_names() -> None:
    names = ["model.safetensors.index.json", "a.safetensors", "b.safetensors"]
    assert select_weights(names, ["b.safetensors", "b.safetensors"]) == ["b.safetensors"]


def test_pickles_alone_are_refused_by_name() -> None:
    with pytest.raises(ModelRejected, match=r"pytorch_model\.bin: a pickle"):
        select_weights(["config.json", "pytorch_model.bin"], [])
    with pytest.raises(ModelRejected, match=r"model\.safetensors: missing"):
        select_weights(["config.json"], [])


def test_a_folder_as_a_trainer_leaves_it(tmp_path: Path) -> None:
    make_model(tmp_path)
    for name in ("training_args.bin", "optimizer.pt", "rng_state_0.pth"):
        (tmp_path / name).write_bytes(b"\x80")
    assert sorted(scan(tmp_path)) == ["config.json", "model.safetensors", "tokenizer.json"]
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ModelRejected, match="a pickle"):
        scan(tmp_path)


def test_a_folder_called_adapter_is_of_the_model_where_it_names_a_base(tmp_path: Path) -> None:
    make_model(tmp_path)
    plain = scan(tmp_path)
    make_bare(tmp_path / "adapter")
    assert scan(tmp_path) == plain
    assert inspect(tmp_path).adapter is None
    (tmp_path / "adapter" / "llmos.json").write_text("{}")
    assert len(scan(tmp_path)) == len(plain) + 3


def test_openvino_models_are_two_files(tmp_path: Path) -> None:
    make_openvino(tmp_path)
    for name in ("openvino_tokenizer.xml", "openvino_tokenizer.bin", "README.md"):
        (tmp_path / name).write_text("")
    weights = ["openvino_model.xml", "openvino_model.bin"]
    expected = sorted(["README.md", "config.json", "tokenizer.json", *weights])
    assert sorted(scan(tmp_path)) == expected
    names = [path.name for path in tmp_path.iterdir()]
    assert select_weights(names, []) == weights
    assert select_weights([*names, "model.onnx"], []) == weights
    assert select_weights([*names, "model.safetensors"], []) == ["model.safetensors"]
    (tmp_path / "openvino_model.bin").unlink()
    with pytest.raises(ModelRejected, match=r"openvino_model\.bin: missing"):
        inspect(tmp_path, scan(tmp_path))
