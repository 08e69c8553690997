"""Keys and values of texts that are being made side by side, in memory that rows come to and leave.

A place is one text's; its columns are aligned at the right end, where the newest token is, so that
texts of unequal lengths step together, and what lies before a text's first column is masked. Of
what an encoder has read, columns are aligned at the left end. A copy is made of what moves alone:
a token goes in where it belongs, and a place that is given up is taken by the last one.

Shapes: B places, H heads, T columns, D units of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, EncoderDecoderCache
from transformers.cache_utils import CacheLayerMixin

ROOM = 32
"""Columns that a layer has beyond those in use when it is made larger."""

Moves = Sequence[tuple[int, int]]
"""From where to where, of places."""


class Columns(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer of a cache: as Transformers' `DynamicLayer`, with room to grow into."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._k_BHTD: torch.Tensor
        self._v_BHTD: torch.Tensor
        self._size = (0, 0)

    @property
    def _both(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._k_BHTD, self._v_BHTD

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """With the first keys and values."""
        self._k_BHTD, self._v_BHTD = key_states[:, :, :0], value_states[:, :, :0]
        self._size = (len(key_states), 0)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Columns more for every place; all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        places, columns = self._size
        grown = columns + key_states.shape[2]
        self.reserve(places, grown)
        for mine, new in zip(self._both, (key_states, value_states), strict=True):
            mine[:places, :, columns:grown] = new
        self._show(places, grown)
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def _show(self, places: int, columns: int) -> None:
        self._size = (places, columns)
        self.keys, self.values = (one[:places, :, :columns] for one in self._both)

    def reserve(self, places: int, columns: int, room: int = ROOM) -> None:
        """Memory for so many, with `room` for more columns where it has to be had anew."""
        had_places, _, had_columns, _ = self._k_BHTD.shape
        if places <= had_places and columns <= had_columns:
            return
        if places > had_places:
            places += places // 4
        columns = columns + room if columns > had_columns else had_columns
        used_places, used_columns = self._size
        made = []
        for old in self._both:
            shape = (max(places, had_places), old.shape[1], columns, old.shape[3])
            new = old.new_zeros(shape)  # what is masked is read all the same, and must be a number
            new[:used_places, :, :used_columns] = old[:used_places, :, :used_columns]
            made.append(new)
        self._k_BHTD, self._v_BHTD = made
        self._show(used_places, used_columns)

    def add(self, other: Columns, *, at_right: bool) -> None:
        """The places of another layer, which has no more columns where they are `at_right`."""
        places, columns = self._size
        more, theirs = other._size
        all_columns = max(columns, theirs)
        self.reserve(places + more, all_columns, ROOM if at_right else 0)
        begin = all_columns - theirs if at_right else 0
        for mine, new in zip(self._both, other._both, strict=True):
            mine[places : places + more, :, begin : begin + theirs] = new[:more, :, :theirs]
        self._show(places + more, all_columns)

    def take(self, places: torch.Tensor) -> Columns:
        """A layer of some places of this one."""
        made = Columns()
        made._k_BHTD, made._v_BHTD = (one[: self._size[0]][places] for one in self._both)
        made.is_initialized = True
        made._show(len(places), self._size[1])
        return made

    def drop(self, left: int, moves: Moves) -> None:
        """All places but `left`, after these moves."""
        columns = self._size[1]
        for mine in self._both:
            for source, target in moves:
                mine[target, :, :columns] = mine[source, :, :columns]
        self._show(left, columns)

    def choose(self, places: torch.Tensor) -> None:
        """Each place goes on from where another was."""
        assert self.keys is not None
        assert self.values is not None
        for mine in (self.keys, self.values):
            mine.copy_(mine[places])

    def trim(self, count: int) -> None:
        """So many columns at the left end are nobody's."""
        places, columns = self._size
        for mine in self._both:
            mine[:places, :, : columns - count] = mine[:places, :, count:columns].clone()
        self._show(places, columns - count)

    def narrow(self, columns: int) -> None:
        """Columns beyond these, at the right end, are nobody's."""
        self._show(self._size[0], min(columns, self._size[1]))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns after a step of so many tokens, and where they begin."""
        return self._size[1] + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self._size[1]

    def get_max_length(self) -> int:
        """None."""
        return -1


def new_cache() -> Any:
    """Of a model with an encoder and a decoder, of no text yet."""
    own, read = (Cache(layer_class_to_replicate=Columns) for _ in range(2))
    return EncoderDecoderCache(own, read)


def own_layers(cache: Any) -> list[Columns]:
    """Of the tokens that are made."""
    found: list[Columns] = cache.self_attention_cache.layers
    return found


def read_layers(cache: Any) -> list[Columns]:
    """Of what the encoder has read."""
    found: list[Columns] = cache.cross_attention_cache.layers
    return found
