"""Keys and values of the requests in the batch: one preallocated slot of the context's length each.

Knows nothing of requests or models. A later pool of pages has to keep these methods only.

Legend: S slots, L tokens of a slot, N tokens, H key/value heads, D head size, T tokens.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import torch

from llmos.drivers.native.pages import Arena
from llmos.drivers.native.transfer import to_host


@dataclasses.dataclass(frozen=True, slots=True)
class LayerShape:
    """Heads and head sizes of one layer's keys and values."""

    num_heads: int
    key_size: int
    value_size: int

    @property
    def elements_per_token(self) -> int:
        return self.num_heads * (self.key_size + self.value_size)


class KVCopy(Protocol):
    """Keys and values of a request's first `num_tokens` tokens, bit by bit, in host memory."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    def tensors(self) -> Iterator[torch.Tensor]:
        """All of it, in the order in which snapshots hold it."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ParkedKV:
    """A slot's first `num_tokens` tokens, copied out bit by bit: keys and values per layer, HTD."""

    num_tokens: int
    keys: list[torch.Tensor]
    values: list[torch.Tensor]

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> Iterator[torch.Tensor]:
        """Keys and values, layer after layer."""
        for pair in zip(self.keys, self.values, strict=True):
            yield from pair


class KVSlots:
    """`num_slots` slots of `length` tokens for every layer, and a spare row for padding.

    Zeroed at first, so that whatever is masked away is finite: what attention multiplies by zero
    must not be a NaN. A head's tokens lie side by side, which is how attention reads them. In host
    memory they are pages that cost nothing until a token is written to them; a slot keeps what it
    has touched when its request is gone.
    """

    def __init__(
        self,
        shapes: list[LayerShape],
        *,
        num_slots: int,
        length: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.num_slots = num_slots
        self.length = length
        self.shapes = shapes
        self.bytes_per_token = sum(s.elements_per_token for s in shapes) * dtype.itemsize
        self._dtype = dtype
        self._device = device
        self._arena: Arena | None = None
        self._num_touched = [0] * num_slots
        self.take()

    def take(self) -> None:
        """Room for all slots, zeroed; what they held is gone."""
        self.give_back()
        sizes = [
            (self.num_slots * s.num_heads * self.length + 1, size)
            for s in self.shapes
            for size in (s.key_size, s.value_size)
        ]
        if self._device.type == "cpu":
            self._arena = Arena(sizes, self._dtype)
            rows = self._arena.tensors
        else:
            rows = [torch.zeros(size, dtype=self._dtype, device=self._device) for size in sizes]
        self._key_rows, self._value_rows = rows[::2], rows[1::2]
        self._keys_SHLD = [self._by_slot(rows) for rows in self._key_rows]
        self._values_SHLD = [self._by_slot(rows) for rows in self._value_rows]

    def give_back(self) -> None:
        """All memory, until `take`. Only when no slot is in use."""
        self._key_rows, self._value_rows = [], []
        self._keys_SHLD, self._values_SHLD = [], []
        self._arena = None
        self._num_touched = [0] * self.num_slots

    @property
    def allocated_bytes(self) -> int:
        """Bytes that the slots may come to hold, padding and page ends included."""
        if self._arena is not None:
            return self._arena.size_bytes
        return sum(rows.nbytes for rows in (*self._key_rows, *self._value_rows))

    def touch(self, slot: int, num_tokens: int) -> None:
        """So many first tokens of a slot have been written."""
        self._num_touched[slot] = max(self._num_touched[slot], num_tokens)

    @property
    def touched_bytes(self) -> int:
        """Of these, what holds something: at least so much is resident."""
        return sum(self._num_touched) * self.bytes_per_token

    def _by_slot(self, rows: torch.Tensor) -> torch.Tensor:
        return rows[:-1].view(self.num_slots, -1, self.length, rows.shape[1])

    @property
    def reserved_bytes(self) -> int:
        """Bytes of all slots, used or not; 0 while they are given back."""
        return self.num_slots * self.length * self.bytes_per_token if self._key_rows else 0

    def rows(
        self, num_heads: int, slots_N: torch.Tensor, positions_N: torch.Tensor
    ) -> torch.Tensor:
        """Where layers of so many heads keep these tokens. A slot of -1 is the spare row."""
        starts_NH = slots_N[:, None] * num_heads + torch.arange(num_heads, device=slots_N.device)
        rows_NH = starts_NH * self.length + positions_N[:, None]
        spare = self.num_slots * num_heads * self.length
        return rows_NH.masked_fill_(slots_N[:, None] < 0, spare).view(-1)

    def write_rows(
        self, layer: int, rows: torch.Tensor, k_NHD: torch.Tensor, v_NHD: torch.Tensor
    ) -> None:
        """Store one token per place."""
        self._key_rows[layer].index_copy_(0, rows, k_NHD.flatten(0, 1))
        self._value_rows[layer].index_copy_(0, rows, v_NHD.flatten(0, 1))

    def write_span(
        self, layer: int, slot: int, start: int, k_HTD: torch.Tensor, v_HTD: torch.Tensor
    ) -> None:
        """Store consecutive tokens of one slot."""
        end = start + k_HTD.shape[1]
        self.touch(slot, end)
        self._keys_SHLD[layer][slot, :, start:end].copy_(k_HTD)
        self._values_SHLD[layer][slot, :, start:end].copy_(v_HTD)

    def read(self, layer: int, slots: slice, span: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of keys and values, SHTD, of adjacent slots and positions."""
        return self._keys_SHLD[layer][slots, :, span], self._values_SHLD[layer][slots, :, span]

    def park(self, slot: int, num_tokens: int) -> ParkedKV:
        """Copy a slot out to host memory, to free it for another request."""
        return ParkedKV(
            num_tokens,
            [to_host(keys[slot, :, :num_tokens]) for keys in self._keys_SHLD],
            [to_host(values[slot, :, :num_tokens]) for values in self._values_SHLD],
        )

    def read_all(self, slot: int, num_tokens: int) -> Iterator[torch.Tensor]:
        """Views of a slot's first tokens, HTD: keys and values, layer after layer."""
        for keys, values in zip(self._keys_SHLD, self._values_SHLD, strict=True):
            yield keys[slot, :, :num_tokens]
            yield values[slot, :, :num_tokens]

    def empty_parked(self, num_tokens: int) -> ParkedKV:
        """Room in host memory for so many tokens from elsewhere, to be filled before `restore`."""

        def room(slots_SHLD: torch.Tensor) -> torch.Tensor:
            _, num_heads, _, size = slots_SHLD.shape
            return torch.empty(num_heads, num_tokens, size, dtype=slots_SHLD.dtype, device="cpu")

        keys, values = map(room, self._keys_SHLD), map(room, self._values_SHLD)
        return ParkedKV(num_tokens, list(keys), list(values))

    def restore(self, slot: int, parked: ParkedKV) -> None:
        """Put a parked slot back, into any slot."""
        for layer, (k_HTD, v_HTD) in enumerate(zip(parked.keys, parked.values, strict=True)):
            self.write_span(layer, slot, 0, k_HTD, v_HTD)

    def clear(self, slot: int, num_tokens: int) -> None:
        """Zero the first tokens of a slot, whose contents may not be finite."""
        for of_layer in (*self._keys_SHLD, *self._values_SHLD):
            of_layer[slot, :, :num_tokens].zero_()
