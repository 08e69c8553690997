"""Prompts to tokens by a GGUF file's own vocabulary and chat template. Torch-free, weight-free."""

from __future__ import annotations

from pathlib import Path

from llmos.drivers.gguf.vocab import Vocab, open_model
from llmos.drivers.text.prepare import TextPreparer
from llmos.weights import inspect


def make(folder: str) -> TextPreparer:
    """The entry named by `ModelVersion.prepare`. Raises ModelRejected, PluginError."""
    path = Path(folder)
    vocab = Vocab(open_model(path / inspect(path).files[0], vocab_only=True))
    return TextPreparer(vocab, vocab.specials(), vocab.templates())
