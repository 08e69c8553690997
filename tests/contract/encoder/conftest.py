"""One folder of each kind for the whole session: making one takes longer than asking it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.drivers.encoder.folders import make_folder

ENTAILMENT = {0: "contradiction", 1: "neutral", 2: "entailment"}
TAGS = {0: "O", 1: "B-PER", 2: "I-PER"}

FOLDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "classes": ("BertForSequenceClassification", {"num_labels": 3}),
    "many": (
        "BertForSequenceClassification",
        {"num_labels": 3, "problem_type": "multi_label_classification"},
    ),
    "score": ("BertForSequenceClassification", {"num_labels": 1}),
    "mean": (
        "ModernBertForSequenceClassification",
        {"num_labels": 3, "classifier_pooling": "mean"},
    ),
    "entailment": (
        "BertForSequenceClassification",
        {"id2label": ENTAILMENT, "label2id": {v: k for k, v in ENTAILMENT.items()}},
    ),
    "tags": (
        "BertForTokenClassification",
        {"id2label": TAGS, "label2id": {v: k for k, v in TAGS.items()}},
    ),
    "spans": ("BertForQuestionAnswering", {}),
    "gaps": ("BertForMaskedLM", {}),
    "vectors": ("BertModel", {}),
}

MakeFolder = Callable[[str], Path]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> MakeFolder:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            architecture, config = FOLDERS[name]
            made[name] = make_folder(tmp_path_factory.mktemp(name), architecture, **config)
        return made[name]

    return make
