"""The onnx driver's engines over graphs that are made up here, in the loop that all items share."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from llmos.abi.events import Finished, Outputs
from llmos.abi.inference import Sampling, WorkItem
from llmos.drivers.encoder import payload
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.payload import Item, Payload, Row
from llmos.drivers.onnx.session import Session
from llmos.drivers.onnx.speech import RATE
from llmos.drivers.onnx.speech_engine import KIND_SPEECH, open_speech
from llmos.drivers.onnx.text_engine import open_text
from llmos.errors import LoadFailed
from tests.unit.drivers.encoder.folders import bert_tokenizer

SPEECH = {"threshold": 0.5, "min_speech_ms": 250, "min_silence_ms": 100, "pad_ms": 30}


class Graph:
    """Of two classes: how many tokens a row has, and their sum."""

    inputs = ("input_ids", "attention_mask")
    outputs: tuple[str, ...] = ("logits",)

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        ids_BL, mask_BL = feeds["input_ids"], feeds["attention_mask"]
        self.shapes.append(ids_BL.shape)
        return {"logits": np.stack([mask_BL.sum(-1), (ids_BL * mask_BL).sum(-1)], axis=-1)}


class Ear:
    """Hears speech wherever it is loud."""

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        loud = np.abs(feeds["input"]).mean(keepdims=True) > 0.25
        return {"stateN": feeds["state"], "output": loud.astype(np.float32)}


def work_item(kind: str, rows: list[Row], params: dict[str, Any], spill: str = "") -> WorkItem:
    made = Payload([Item(i, [row]) for i, row in enumerate(rows)], params)
    return WorkItem("req_a", b"", Sampling(), kind=kind, payload=payload.encode(made), spill=spill)


def drive(loop: Any, item: WorkItem) -> dict[int, Any]:
    loop.submit(item)
    found: dict[int, Any] = {}
    while loop.can_move():
        for event in loop.step():
            if isinstance(event, Outputs):
                found |= {one.index: one.value for one in event.items}
            else:
                assert isinstance(event, Finished)
    return found


def make_folder(folder: Path) -> Path:
    config = {"architectures": ["BertForSequenceClassification"], "num_labels": 2}
    (folder / "config.json").write_text(json.dumps(config))
    bert_tokenizer(folder)
    return folder


def test_texts_share_batches_by_length(tmp_path: Path) -> None:
    graph = Graph()
    loop = open_text(make_folder(tmp_path), cast("Session", graph))
    lengths = [10, 200] * 100
    rows = [Row(n, array("i", [1] * n).tobytes()) for n in lengths]
    asked = {"function_to_apply": "none", "top_k": None}
    found = drive(loop, work_item("text-classification", rows, asked))
    assert [found[i][0]["score"] for i in range(200)] == lengths
    assert {shape[1] for shape in graph.shapes} == {10, 200}
    assert all(rows * length <= LIMITS.batch_tokens for rows, length in graph.shapes)
    assert len(graph.shapes) == 2 + 5


def test_recordings_of_any_length_run_one_by_one(tmp_path: Path) -> None:
    """Side by side they would have to be of one shape."""
    spill = tmp_path / "spill"
    seconds = [2, 3, 2]
    sounds = [np.concatenate([np.zeros(RATE), np.full((n - 1) * RATE, 0.5)]) for n in seconds]
    spill.write_bytes(np.concatenate(sounds).astype("<f4").tobytes())
    starts = np.cumsum([0, *seconds[:-1]]) * RATE
    rows = [Row(1, start=int(at), shape=[n * RATE]) for at, n in zip(starts, seconds, strict=True)]
    loop = open_speech(cast("Session", Ear()))
    found = drive(loop, work_item(KIND_SPEECH, rows, SPEECH, str(spill)))
    assert [found[i]["seconds"] for i in range(3)] == seconds
    for i, n in enumerate(seconds):
        (span,) = found[i]["segments"]
        assert span["start"] == pytest.approx(1, abs=0.1)
        assert span["end"] == pytest.approx(n, abs=0.1)


def test_a_graph_without_what_its_head_needs(tmp_path: Path) -> None:
    graph = Graph()
    graph.outputs = ("hidden",)
    with pytest.raises(LoadFailed, match="no output logits"):
        open_text(make_folder(tmp_path), cast("Session", graph))
