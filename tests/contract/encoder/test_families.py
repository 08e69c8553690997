"""Every family of encoders: rows of a batch come out as they do alone, and as the model's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from llmos.drivers.encoder.kinds import TEXT_FAMILIES, find_purpose
from tests.unit.drivers.encoder.folders import infer, load, make_folder

TEXTS = ["the cat", "who lives in new york and paris?", "it is good or bad, the cat sat on a mat"]

EXTRA: dict[str, dict[str, Any]] = {
    "Albert": {"embedding_size": 32},
    "BigBird": {"attention_type": "original_full"},
    "Deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "DebertaV2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "DistilBert": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
    "Electra": {"embedding_size": 32},
    "EuroBert": {"num_key_value_heads": 4, "head_dim": 8},
    "MobileBert": {
        "embedding_size": 32,
        "true_hidden_size": 32,
        "intra_bottleneck_size": 32,
        "use_bottleneck": True,
    },
    "ModernBert": {"num_hidden_layers": 3},
    "RemBert": {"input_embedding_size": 32, "output_embedding_size": 32},
    "RoFormer": {"embedding_size": 32},
    "SqueezeBert": {"embedding_size": 32},
}


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_a_batch_changes_nothing(family: str, tmp_path: Path) -> None:
    """To 2e-4 of vectors that are normalized: weights are far from 0, so sums are large."""
    extra = EXTRA.get(family, {}) | {"max_position_embeddings": 80}
    folder = make_folder(tmp_path, f"{family}Model", **extra)
    driver = load(folder)
    together = infer(folder, "embeddings", TEXTS, driver)
    alone = [infer(folder, "embeddings", [text], driver)[0] for text in TEXTS]
    cls = getattr(transformers, f"{family}Model")
    model = cls.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for text, batched, single in zip(TEXTS, together, alone, strict=True):
        assert batched.error is None, batched.error
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            hidden = model(input_ids=ids).last_hidden_state[0].mean(0)
        expected = (hidden / hidden.norm()).numpy()
        for output in (batched, single):
            assert np.frombuffer(output.data, "<f4") == pytest.approx(expected, abs=2e-4)


def test_what_an_architecture_is_for() -> None:
    def kinds(architecture: str, labels: list[str], **pools: bool) -> list[str]:
        purpose = find_purpose(architecture, labels, **pools)
        return [] if purpose is None else purpose.kinds

    one, three = ["LABEL_0"], ["contradiction", "neutral", "Entailment"]
    assert kinds("BertForSequenceClassification", ["a", "b"]) == ["text-classification"]
    assert kinds("RobertaForSequenceClassification", one) == ["rerank", "text-classification"]
    assert kinds("BertForSequenceClassification", three)[0] == "zero-shot-classification"
    assert kinds("XLMRobertaForTokenClassification", three) == ["token-classification"]
    assert kinds("BertForMaskedLM", []) == ["fill-mask"]
    assert kinds("BertForMaskedLM", [], pools=True) == ["embeddings"]
    assert kinds("MPNetModel", []) == ["embeddings"]
    assert kinds("ConvBertModel", []) == []
    assert kinds("LlamaModel", []) == []
    assert kinds("LlamaForCausalLM", []) == []
    assert kinds("BertForNextSentencePrediction", []) == []


def test_sentence_transformers_folders_say_how_they_pool(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "BertForMaskedLM")
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]
        )
    )
    (folder / "1_Pooling").mkdir()
    settings = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    driver = load(folder)
    said, asked, long = infer(folder, "embeddings", ["the cat", "the cat", "a " * 40], driver)
    (named,) = infer(
        folder, "embeddings", ["the cat"], driver, params={"pooling": "cls", "normalize": False}
    )
    assert said.data == asked.data
    assert np.frombuffer(said.data, "<f4") == pytest.approx(
        np.frombuffer(named.data, "<f4"), abs=1e-5
    )
    assert long.note == "read in 3 windows of 16 tokens"
