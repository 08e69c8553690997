"""Exports of text encoders: onnxruntime answers as the encoder driver does of the same weights."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from llmos.abi.inference import ItemsPrompt, PrepareItem
from llmos.drivers.catalog import choose
from llmos.drivers.onnx.driver import OnnxDriver
from llmos.drivers.onnx.prepare import make
from llmos.weights import inspect
from tests.contract.encoder.conftest import FOLDERS
from tests.unit.drivers.encoder.folders import (
    PIECES,
    infer,
    make_folder,
    outputs,
    work_item,
)
from tests.unit.drivers.tiny import drive, make_spec

TEXT = "the cat sat on a mat, who lives in paris?"
LONG = "who lives in new york? " * 20

CASES: dict[str, tuple[str, str, list[Any], dict[str, Any]]] = {
    "classes": ("classes", "text-classification", [TEXT, "a", LONG], {"top_k": 3}),
    "many": ("many", "text-classification", [TEXT, {"text": "a", "text_pair": "cat"}], {}),
    "windows": ("classes", "text-classification", [LONG, "a"], {"overflow": "window"}),
    "score": ("score", "rerank", [{"query": "who", "text": t} for t in (TEXT, "a cat", LONG)], {}),
    "entailment": (
        "entailment",
        "zero-shot-classification",
        [TEXT, "a"],
        {"candidate_labels": ["cat", "paris"]},
    ),
    "tags": ("tags", "token-classification", [TEXT, LONG], {"aggregation_strategy": "simple"}),
    "spans": ("spans", "question-answering", [{"question": "who", "context": TEXT}], {"top_k": 2}),
    "vectors": ("vectors", "embeddings", [TEXT, "a", LONG], {}),
}
NAMES = {"spans": ["start_logits", "end_logits"], "vectors": ["last_hidden_state"]}


class Plain(torch.nn.Module):
    """With the wanted outputs as a tuple."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self._model, self._names = model.eval(), names

    def forward(self, ids_BL: Any, mask_BL: Any, types_BL: Any) -> Any:
        out = self._model(input_ids=ids_BL, attention_mask=mask_BL, token_type_ids=types_BL)
        return tuple(out[name] for name in self._names)


def _export(folder: Path, name: str, architecture: str) -> None:
    """The graph alone, beside the folder's configuration and tokenizer."""
    model = getattr(transformers, architecture).from_pretrained(folder, attn_implementation="eager")
    given, outs = ["input_ids", "attention_mask", "token_type_ids"], NAMES.get(name, ["logits"])
    axes = {0: "rows", 1: "tokens"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Plain(model, outs),
            (torch.ones((2, 6), dtype=torch.long),) * 3,
            str(folder / "model.onnx"),
            dynamo=False,
            input_names=given,
            output_names=outs,
            dynamic_axes={**dict.fromkeys(given, axes), **dict.fromkeys(outs, axes)},
        )
    (folder / "model.safetensors").unlink()


def _ours(folder: Path, kind: str, items: list[Any], params: dict[str, Any]) -> list[Any]:
    driver = OnnxDriver()
    driver.load(make_spec(folder), lambda *_: None)
    prompt = ItemsPrompt(kind, items, params)
    asked = PrepareItem("req_x", "", str(folder), prompt, len(PIECES), None, kind, 4096)
    made = make(str(folder)).prepare(asked)
    found = outputs(drive(driver, [work_item("req_x", kind, made)])["req_x"])
    driver.unload()
    return found


@pytest.mark.parametrize("case", CASES)
def test_an_export_answers_as_its_weights_do(
    case: str, tmp_path: Path, require: Callable[[str], None]
) -> None:
    require("onnx")
    name, kind, items, params = CASES[case]
    architecture, config = FOLDERS[name]
    folder = make_folder(tmp_path, architecture, **config)
    expected = infer(folder, kind, items, params=params)
    _export(folder, name, architecture)
    choice = choose(inspect(folder))
    assert (choice.driver, kind in choice.kinds) == ("onnx", True)
    for ours, wanted in zip(_ours(folder, kind, items, params), expected, strict=True):
        assert ours.error is wanted.error is None
        assert ours.note == wanted.note
        if wanted.value is None:
            assert np.allclose(_floats(ours.data), _floats(wanted.data), atol=1e-4)
        else:
            _alike(ours.value, wanted.value)


def _floats(data: bytes) -> Any:
    return np.frombuffer(data, dtype="<f4")


def _alike(ours: Any, wanted: Any) -> None:
    """The same but for the last digits of numbers."""
    if isinstance(wanted, float):
        assert ours == pytest.approx(wanted, abs=1e-4)
    elif isinstance(wanted, dict):
        assert ours.keys() == wanted.keys()
        for key, value in wanted.items():
            _alike(ours[key], value)
    elif isinstance(wanted, list):
        assert len(ours) == len(wanted)
        for one, other in zip(ours, wanted, strict=True):
            _alike(one, other)
    else:
        assert ours == wanted


def test_a_bad_text_fails_alone(tmp_path: Path, require: Callable[[str], None]) -> None:
    require("onnx")
    folder = make_folder(tmp_path, "BertForSequenceClassification", num_labels=3)
    _export(folder, "classes", "BertForSequenceClassification")
    good, bad, long = _ours(folder, "text-classification", ["a", 3, LONG], {"overflow": "refuse"})
    assert good.error is None
    assert bad.error.code == "invalid_request"
    assert long.error.code == "context_length_exceeded"
    assert json.loads((folder / "config.json").read_text())["architectures"]
