"""The generic forward over a description gives Transformers' own logits, for each architecture:

in plain torch, and through the kernels.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from llmos.drivers.native.architectures import NATIVE_ARCHITECTURES
from llmos.drivers.native.fused.architectures import FAMILIES
from llmos.drivers.native.fused.spec import Activation, Decoder, Unsupported
from tests.contract.fused.compare import described, worst_of
from tests.contract.fused.engines import logits, open_engine
from tests.contract.fused.models import (
    CONFIGS,
    LENGTH,
    VOCAB_SIZE,
    WINDOW,
    make,
    read_tensors,
)
from tests.contract.fused.reference import Reference

WITHOUT_KERNELS = {"ApertusForCausalLM": "xielu"}
"""Architectures that torch serves, and why."""

TOKENS = [(7 * i + 3) % VOCAB_SIZE for i in range(LENGTH)]


@pytest.mark.parametrize("architecture", FAMILIES)
def test_logits(architecture: str, tmp_path: Path) -> None:
    model = make(architecture, tmp_path)
    assert worst_of(model, architecture, tmp_path) <= 1e-5
    if architecture in WITHOUT_KERNELS:
        with pytest.raises(Unsupported, match=WITHOUT_KERNELS[architecture]):
            open_engine(architecture, tmp_path)
        return
    engine = open_engine(architecture, tmp_path)
    found = logits(engine, TOKENS)
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([TOKENS]), use_cache=False).logits[0]
    assert ((found - expected).abs().amax(-1) <= 1e-4 * expected.abs().amax(-1)).all()
    # the same bits however it is cut
    assert torch.equal(logits(engine, TOKENS, cuts=[1, 2, 15, 17, 33]), found)
    assert torch.equal(logits(engine, TOKENS, cuts=range(1, LENGTH)), found)
    engine.close()


def test_all_dense_architectures_are_described() -> None:
    assert set(FAMILIES) == set(CONFIGS) == NATIVE_ARCHITECTURES


def _changed(decoder: Decoder, **fields: Any) -> Decoder:
    """With other fields in its first layer."""
    first, *others = decoder.layers
    return dataclasses.replace(decoder, layers=(dataclasses.replace(first, **fields), *others))


@pytest.mark.parametrize(
    "fields",
    [
        {"window": None},
        {"window": WINDOW + 1},
        {"softcap": 2.02},
        {"scale": 0.32},
        {"rope": None},
        {"pre_attn": None},
        {"post_attn": None},
        {"pre_mlp": None},
        {"post_mlp": None},
        {"parallel": True},
        {"activation": Activation.GELU},
        {"residual_scale": 1.001},
        {"clip": 0.8},
    ],
)
def test_the_comparison_sees_each_part(fields: dict[str, Any], tmp_path: Path) -> None:
    """Every change of a description moves the logits well beyond the bound of these tests."""
    make("Gemma2ForCausalLM", tmp_path)
    decoder, tensors = described("Gemma2ForCausalLM", tmp_path), read_tensors(tmp_path)
    right = Reference(decoder, tensors).logits(TOKENS)
    wrong = Reference(_changed(decoder, **fields), tensors).logits(TOKENS)
    assert (wrong - right).abs().max() > 1e-4 * right.abs().max()
