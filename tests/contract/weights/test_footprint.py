"""The arithmetic of memory, and that the driver and the estimate mean the same shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.eager import EagerRunner
from llmos.drivers.native.fused.runner import FusedRunner
from llmos.weights import inspect, processor
from llmos.weights.footprint import (
    CONTEXT_TOKENS,
    ROWS,
    TABLE_BYTES,
    Shape,
    footprint_bytes,
    scratch_bytes,
    widest,
)
from tests.unit.drivers.tiny import make_model, make_spec

SHAPE = Shape(
    vocab_size=32000,
    hidden_size=512,
    widest=2048,
    largest=32000 * 512,
    num_heads=8,
    head_dim=64,
    item_bytes=4,
)


def test_scratch_grows_with_all_it_depends_on() -> None:
    least = scratch_bytes(SHAPE, 16, 1024)
    for more in (
        {"vocab_size": 1 << 20},
        {"widest": 1 << 18},
        {"num_heads": 256},
        {"hidden_size": 1 << 17},
        {"capped": True, "num_heads": 64},
    ):
        assert scratch_bytes(msgspec.structs.replace(SHAPE, **more), 16, 1024) > least, more
    assert scratch_bytes(SHAPE, 64, 1024) > least
    assert scratch_bytes(SHAPE, 16, 1 << 17) > least
    assert scratch_bytes(SHAPE, 1, 1024) == least  # a step is never narrower


def test_a_matrix_of_16_bits_is_copied() -> None:
    half = msgspec.structs.replace(SHAPE, item_bytes=2)
    larger = msgspec.structs.replace(half, largest=4 * half.largest)
    assert scratch_bytes(larger, 16, 64) - scratch_bytes(half, 16, 64) >= 3 * half.largest * 2
    assert scratch_bytes(msgspec.structs.replace(SHAPE, largest=1), 16, 64) == scratch_bytes(
        SHAPE, 16, 64
    )


def test_the_file_and_the_scratch_are_not_there_at_once() -> None:
    scratch = scratch_bytes(SHAPE, ROWS, 1024)
    plain = footprint_bytes(1000, 0, 0, SHAPE, 1024)
    assert plain >= 1000 + TABLE_BYTES + scratch
    assert footprint_bytes(1000, scratch, 0, SHAPE, 1024) == plain
    assert footprint_bytes(1000, scratch + 7, 0, SHAPE, 1024) == plain + 7
    longest = footprint_bytes(1000, 0, 0, SHAPE, 1 << 24)
    assert longest == footprint_bytes(1000, 0, 0, SHAPE, CONTEXT_TOKENS)


def test_the_widest_matrix_is_no_embedding() -> None:
    assert widest([(100, 8), (8, 24), (50,), (3, 16, 8)], 100) == 24
    assert widest([(100, 8)], 100) == 100


KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "gemma2": {"attn_logit_softcapping": 50.0, "head_dim": 16},
    "gpt2": {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_estimate_covers_what_is_loaded(tmp_path: Path, kind: str, dtype: str) -> None:
    make_model(tmp_path, kind, dtype=dtype, **KINDS[kind])
    facts = inspect(tmp_path)
    driver = NativeDriver()
    driver.load(make_spec(tmp_path, options={"engine": "torch"}), lambda fraction, what: None)
    runner = driver._model()
    assert isinstance(runner, EagerRunner)
    loaded = runner.loaded
    assert str(loaded.dtype) == f"torch.{processor.loaded_dtype(dtype)}"
    scratch = scratch_bytes(loaded.shape(), 16, loaded.context_length)
    least = loaded.weights.size_bytes + scratch + TABLE_BYTES
    assert facts.footprint_bytes >= least
    per_token = sum(s.elements_per_token for s in loaded.shapes) * loaded.dtype.itemsize
    assert facts.kv_bytes_per_token >= per_token


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_estimate_covers_the_fused_engine(tmp_path: Path, kind: str, dtype: str) -> None:
    make_model(tmp_path, kind, dtype=dtype, **KINDS[kind])
    facts = inspect(tmp_path)
    driver = NativeDriver()
    driver.load(make_spec(tmp_path, options={"engine": "fused"}), lambda fraction, what: None)
    runner = driver._model()
    assert isinstance(runner, FusedRunner)
    least = runner._residence.size_bytes + runner.engine.scratch_bytes + TABLE_BYTES
    assert facts.footprint_bytes >= least
    assert facts.kv_bytes_per_token * 16 >= runner.engine.page_bytes
    driver.unload()


def test_a_type_the_processor_has_not_counts_as_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path, dtype="bfloat16")
    monkeypatch.setattr(processor, "_flags", lambda: frozenset(["avx512_bf16"]))
    able = inspect(tmp_path)
    per_token = able.kv_bytes_per_token
    monkeypatch.setattr(processor, "_flags", frozenset[str])
    unable = inspect(tmp_path)
    assert (able.dtype, unable.dtype) == ("bfloat16", "bfloat16")
    assert unable.kv_bytes_per_token == 2 * per_token
