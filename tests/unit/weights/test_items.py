"""Facts about models that answer item by item, whose configurations say less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import ModelRejected
from llmos.registry.selection import require_basics, select_small
from llmos.weights import inspect
from llmos.weights.labels import find_labels
from tests.unit.model_folder import make_model

BERT: dict[str, Any] = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "id2label": {"0": "bad", "1": "good"},
}
RESNET = {
    "architectures": ["ResNetForImageClassification"],
    "model_type": "resnet",
    "hidden_sizes": [8, 16],
    "vocab_size": None,
    "hidden_size": None,
    "num_attention_heads": None,
    "num_hidden_layers": None,
    "max_position_embeddings": None,
}


def test_a_classifier_has_labels_and_keeps_nothing(tmp_path: Path) -> None:
    facts = inspect(make_model(tmp_path, **BERT))
    assert facts.labels == ["bad", "good"]
    assert facts.kv_bytes_per_token == 0
    assert set(facts.loads) == {"float32", "bfloat16", "float16"}
    assert all(cost.kv_bytes_per_token == 0 for cost in facts.loads.values())
    assert facts.footprint_bytes == facts.loads["float32"].footprint_bytes > 100 << 20
    assert facts.loads["float16"].footprint_bytes <= facts.footprint_bytes


def test_a_decoder_needs_room_for_keys_and_values(tmp_path: Path) -> None:
    plain = inspect(make_model(tmp_path / "a", **BERT))
    t5 = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "max_position_embeddings": None,
    }
    facts = inspect(make_model(tmp_path / "b", **t5))
    assert facts.is_encoder_decoder
    assert facts.context_length == 512
    assert facts.footprint_bytes > plain.footprint_bytes


def test_a_model_of_images_has_no_tokenizer(tmp_path: Path) -> None:
    folder = make_model(tmp_path, **RESNET)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelRejected, match=r"and so is preprocessor_config\.json"):
        inspect(folder)
    (folder / "preprocessor_config.json").write_text("{}")
    facts = inspect(folder)
    assert (facts.has_tokenizer, facts.vocab_size, facts.hidden_size) == (False, 1, 16)


def test_a_folder_of_sentence_transformers_is_known_by_its_modules(tmp_path: Path) -> None:
    folder = make_model(tmp_path, **BERT | {"architectures": ["BertModel"]})
    assert not inspect(folder).pools
    (folder / "modules.json").write_text("[]")
    assert inspect(folder).pools


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({}, []),
        ({"id2label": []}, []),
        ({"id2label": {"0": "a", "2": "b"}}, []),
        ({"id2label": {"1": "b", "0": "a"}}, ["a", "b"]),
        ({"id2label": {0: "a", 1: 7}}, ["a", "7"]),
        ({"id2label": {"0": "x" * 999}}, ["x" * 256]),
    ],
)
def test_labels(config: dict[str, Any], labels: list[str]) -> None:
    assert find_labels(config) == labels


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "num_attention_heads"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, field: str) -> None:
    folder = make_model(tmp_path, **BERT)
    config = json.loads((folder / "config.json").read_text()) | {field: -1}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelRejected, match=field):
        inspect(folder)


def test_which_files_such_models_need() -> None:
    names = ["config.json", "1_Pooling/config.json", "2_Dense/model.safetensors", "x/config.json"]
    names += ["vocab.json", "onnx/model.onnx", "../1_Pooling/config.json"]
    assert select_small(names) == ["config.json", "1_Pooling/config.json", "vocab.json"]
    require_basics(["config.json", "preprocessor_config.json"])
    require_basics(["config.json", "vocab.json", "tokenizer_config.json"])
    with pytest.raises(ModelRejected, match="tokenizer"):
        require_basics(["config.json", "vocab.json"])
    with pytest.raises(ModelRejected, match="tokenizer"):
        require_basics(["config.json", "vocab.json", "merges.txt", "tokenizer_config.json"])
