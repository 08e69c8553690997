"""Which driver and which preparer serve which model. Torch-free: decided before anything loads."""

from __future__ import annotations

import msgspec

from llmos.errors import ModelRejected
from llmos.weights import ModelFacts

PREPARE_TEXT = "llmos.drivers.text.prepare:make"
"""The preparer of every model with a `tokenizer.json`."""


class DriverSpec(msgspec.Struct, frozen=True):
    """How to start a driver. `entry` and `prepare` are entry strings.

    `python` is the interpreter of its environment, empty for our own; `distributions` must be
    installed there.
    """

    entry: str
    prepare: str
    python: str = ""
    distributions: list[str] = []


class DriverChoice(msgspec.Struct, frozen=True):
    """Who serves a model. `reason` says why, for people."""

    driver: str
    prepare: str
    reason: str


DRIVERS: dict[str, DriverSpec] = {
    "native": DriverSpec(
        entry="llmos.drivers.native.driver:NativeDriver",
        prepare=PREPARE_TEXT,
        distributions=["torch", "transformers", "safetensors", "tokenizers"],
    ),
    "echo": DriverSpec(entry="llmos.drivers.echo:EchoDriver", prepare="llmos.drivers.echo:make"),
}
"""Every driver by its name."""

NATIVE_ARCHITECTURES = frozenset(
    """
    LlamaForCausalLM
    """.split()
)
"""Transformers architectures that were compared with Transformers' own attention, bit for logit."""

_REFUSED = {}


def find_refusal(architecture: str) -> str | None:
    """Why the native driver does not read an architecture; None when it does."""
    return None if architecture in NATIVE_ARCHITECTURES else "no"


def choose(facts: ModelFacts) -> DriverChoice:
    """Raises ModelRejected naming the architecture and the reason when no driver reads it."""
    raise ModelRejected("")
