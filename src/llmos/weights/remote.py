"""A remote model as facts: it has no weights here, and its tokens are unknown."""

from __future__ import annotations

import msgspec

from llmos.abi.remote import RemoteSpec
from llmos.weights.facts import ModelFacts

FORMAT = "openai"

FOOTPRINT_BYTES = 32 << 20
"""Connections, and the answers that come over them."""


def remote_facts(spec: RemoteSpec) -> ModelFacts:
    """What there is to say without asking it."""
    return ModelFacts(
        format=FORMAT,
        architecture="",
        model_type="",
        dtype="",
        num_parameters=0,
        context_length=spec.context_length,
        vocab_size=0,
        hidden_size=0,
        num_layers=0,
        num_heads=0,
        num_kv_heads=0,
        head_dim=0,
        weights_bytes=0,
        footprint_bytes=FOOTPRINT_BYTES,
        tied=False,
        has_tokenizer=False,
        has_chat_template=True,
        files=[],
        keeps_kv=False,
        kinds=[*spec.kinds],
    )


def encode_spec(spec: RemoteSpec) -> bytes:
    """The file of its version: the same bytes for the same spec."""
    return msgspec.json.format(msgspec.json.encode(spec, order="deterministic"), indent=2) + b"\n"
