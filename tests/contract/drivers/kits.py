"""What the suites must know of each driver to hold it to its contract: one entry a driver."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmos.abi.remote import REMOTE_FILE
from tests.unit.drivers.encoder.folders import PIECES, SIZES, bert_tokenizer, make_folder
from tests.unit.drivers.openai.fake_remote import FakeRemote
from tests.unit.drivers.tiny import VOCAB_SIZE, make_model
from tests.unit.gguf_file import make_gguf
from tests.unit.onnx_file import make_embedder
from tests.unit.openvino_model import convert


def _nothing(folder: Path) -> None:
    """Of a driver that reads no files."""


def _no_tick() -> None:
    """Of an engine that is stepped."""


def _no_options(num_tokens: int) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Kit:
    """`make_model` writes a small model of its format; `ask` is `WorkItem.options` for so many
    tokens; `outside` is no token of its vocabulary. `tick` lets an engine that is elsewhere go one
    token on. `cut` are the endings of files that must be whole. `marks`: what stands in the place
    of the ids of a prompt may be more than them. `options` are those of its replicas. `is_slow`:
    it loads for so long that tests share one that is loaded. `warmest`: the highest temperature
    that its engine takes."""

    make_model: Callable[[Path], None]
    vocab_size: int
    outside: int
    ask: Callable[[int], dict[str, Any]] = _no_options
    reads_files: bool = True
    tick: Callable[[], None] = _no_tick
    cut: tuple[str, ...] = (".safetensors", ".gguf")
    marks: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    is_slow: bool = False
    warmest: float = 4.0


def _make_native(folder: Path) -> None:
    make_model(folder)


def _make_gguf(folder: Path) -> None:
    make_gguf(folder)


def _make_openvino(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as source:
        make_model(Path(source))
        convert(Path(source), folder)


def _make_vllm(folder: Path) -> None:
    """Of the smallest heads that vLLM computes with on a CPU."""
    make_model(folder, head_dim=32)


@functools.cache
def remote() -> FakeRemote:
    """For as long as the tests run."""
    return FakeRemote()


def _make_remote(folder: Path) -> None:
    spec = {
        "endpoints": [{"url": remote().url, "model": "letters"}],
        "chars_per_token": 1,
        "extensions": True,
    }
    (folder / REMOTE_FILE).write_text(json.dumps(spec))


KITS: dict[str, Kit] = {
    "echo": Kit(
        make_model=_nothing,
        vocab_size=300,
        outside=0x110000,
        ask=lambda num_tokens: {"tokens": num_tokens},
        reads_files=False,
    ),
    "gguf": Kit(make_model=_make_gguf, vocab_size=VOCAB_SIZE, outside=VOCAB_SIZE),
    "native": Kit(make_model=_make_native, vocab_size=VOCAB_SIZE, outside=VOCAB_SIZE),
    "openvino": Kit(
        make_model=_make_openvino,
        vocab_size=VOCAB_SIZE,
        outside=VOCAB_SIZE,
        cut=(".bin", ".xml"),
    ),
    "vllm": Kit(
        make_model=_make_vllm,
        vocab_size=VOCAB_SIZE,
        outside=VOCAB_SIZE,
        options={"eager": True},
        is_slow=True,
        warmest=2.0,
    ),
    "openai": Kit(
        make_model=_make_remote,
        vocab_size=0x110002,
        outside=0x110002,
        tick=lambda: remote().tick(),
        cut=(".json",),
        marks=True,
    ),
}


@dataclass(frozen=True)
class ItemKit:
    """Of a driver that answers item by item: `kind` is what its small model is for."""

    make_model: Callable[[Path], None]
    kind: str


def _make_bert(folder: Path) -> None:
    make_folder(folder, "BertModel")


def _make_onnx(folder: Path) -> None:
    """A vector for each token, told apart by its number."""
    vectors = [[float(i), float(i * i % 17), 1.0] for i in range(len(PIECES))]
    (folder / "model.onnx").write_bytes(make_embedder(vectors))
    config = {"architectures": ["BertModel"], "model_type": "bert", "type_vocab_size": 2}
    (folder / "config.json").write_text(json.dumps(config | SIZES))
    bert_tokenizer(folder)


ITEM_KITS: dict[str, ItemKit] = {
    "encoder": ItemKit(_make_bert, "embeddings"),
    "onnx": ItemKit(_make_onnx, "embeddings"),
}
