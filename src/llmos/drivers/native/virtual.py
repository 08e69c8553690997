"""What an adapter adds beside a model's weights: virtual tokens, keys and values, layers.

Virtual tokens are tokens: ids after the vocabulary's, which stand before every prompt and are read
as any others are. So chunks, copies of KV and snapshots hold them without knowing. Of a prefix the
keys and values are learned themselves; they are written where those of its tokens would be.

Legend: V virtual tokens, H heads, D head size.
"""

# ruff: noqa: N806 (tensor names carry their shape)
from __future__ import annotations

import torch

from llmos.abi.registry import AdapterForm
from llmos.drivers.adapters.folder import Adapted
from llmos.drivers.adapters.layers import add_bottlenecks, add_vectors, prefix_pairs
from llmos.drivers.native.failures import mapped
from llmos.drivers.native.kv import KVSlots
from llmos.errors import EngineFailed, LoadFailed

Pair = tuple[torch.Tensor, torch.Tensor]


class Virtual:
    """Of one loaded model, which may have none of it."""

    def __init__(self, adapted: Adapted | None) -> None:
        self._adapted = adapted
        self._form = None if adapted is None else adapted.form
        self._first: int | None = None
        self._pairs: list[Pair] = []
        self.num_tokens = 0 if adapted is None else adapted.num_virtual

    def add(self, model: torch.nn.Module) -> None:
        """To a model that has just been read. Raises LoadFailed."""
        if self._adapted is None:
            return
        try:
            with mapped():
                if self._form is AdapterForm.BOTTLENECK:
                    add_bottlenecks(model, self._adapted)
                elif self._form is AdapterForm.TOKENS:
                    self._first = add_vectors(model, self._adapted)
                elif self._form is AdapterForm.PREFIX:
                    like = next(model.parameters())
                    self._pairs = prefix_pairs(self._adapted, model.config, like)
        except EngineFailed as error:
            raise LoadFailed(f"its adapter does not fit: {error.message}") from error

    def ids(self, vocab_size: int) -> tuple[int, ...]:
        """Before every prompt. A prefix's are never looked up."""
        first = vocab_size if self._first is None else self._first
        return tuple(range(first, first + self.num_tokens))

    def begin(self, kv: KVSlots, slot: int) -> int:
        """Write what a request begins with into its slot; how many tokens that is."""
        if self._form is not AdapterForm.PREFIX:
            return 0
        for layer, (k_1HVD, v_1HVD) in enumerate(self._pairs):
            kv.write_span(layer, slot, 0, k_1HVD[0], v_1HVD[0])
        return self.num_tokens
