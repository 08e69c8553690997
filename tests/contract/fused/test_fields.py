"""A config field that Transformers' modules read is handled, or known not to change the forward."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import transformers

from llmos.drivers.native.fused.architectures import FAMILIES
from llmos.drivers.native.fused.family import Family, Windows

SIZES = {
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
    "n_embd",
    "n_layer",
}
CHECKED_BY_SHAPE = {"intermediate_size", "n_inner", "ffn_dim"}
TRAINING = {
    *("attention_dropout", "hidden_dropout", "residual_dropout", "embedding_dropout", "dropout"),
    *("attn_pdrop", "embd_pdrop", "resid_pdrop", "layerdrop", "initializer_range", "init_std"),
}
HARMLESS = {
    *("_attn_implementation", "pad_token_id", "use_cache", "dtype", "is_decoder"),
    *("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "reorder_and_upcast_attn"),
}
"""What has no part in the values: or, in float32, no other values."""
UNUSED = {
    # read and kept, never used; or only read by `generate`
    "Exaone4ForCausalLM": {"sliding_window_pattern"},
    "Gemma3ForCausalLM": {"attn_logit_softcapping"},
    "Phi3ForCausalLM": {"original_max_position_embeddings"},
}
REFUSED = {"add_cross_attention", "use_bidirectional_attention"}
NOT_IN_A_DECODER = ("Classification", "Answering", "Multi", "Conditional", "Double", "Gemma3Model")


def _fields_read(architecture: str) -> set[str]:
    module = sys.modules[getattr(transformers, architecture).__module__]
    tree = ast.parse(inspect.getsource(module))
    skipped = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        if any(part in node.name for part in (*NOT_IN_A_DECODER, "SequenceSummary"))
    ]
    kept = [node for node in tree.body if node not in skipped]
    return {name for node in kept for each in ast.walk(node) for name in _field(each)}


def _field(node: ast.AST) -> Iterator[str]:
    """`config.x`, `self.config.x`, `getattr(config, "x")`."""
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("config", "self.config"):
        yield node.attr
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
        of, name = node.args[:2]
        if ast.unparse(of) in ("config", "self.config") and isinstance(name, ast.Constant):
            yield str(name.value)


def _handled(family: Family) -> set[str]:
    found = {"tie_word_embeddings", "max_position_embeddings"}
    if family.rope is not None:
        found |= {"rope_parameters", "head_dim"}
    if family.grouped:
        found.add("num_key_value_heads")
    if family.windows is not Windows.NONE:
        found |= {"sliding_window", "layer_types"}
    for field in dataclasses.fields(family):
        value: Any = getattr(family, field.name)
        if isinstance(value, str):
            found.add(value)
        elif callable(value) and hasattr(value, "__code__"):
            found |= _names(value)
    return found


def _names(function: Any) -> set[str]:
    """Names that a function mentions, and those that the functions it calls do."""
    found = set(function.__code__.co_names)
    for name in function.__code__.co_names:
        called = function.__globals__.get(name)
        if inspect.isfunction(called):
            found |= _names(called)
    return found


@pytest.mark.parametrize("architecture", FAMILIES)
def test_no_field_is_overlooked(architecture: str) -> None:
    read = _fields_read(architecture)
    assert len(read) > 8
    known = _handled(FAMILIES[architecture]) | SIZES | CHECKED_BY_SHAPE | TRAINING
    assert read - known - HARMLESS - REFUSED - UNUSED.get(architecture, set()) == set()
