"""Keys and values of the requests in the batch: one preallocated slot of the context's length each.

Knows nothing of requests or models. A later pool of pages has to keep these methods only.

Legend: S slots, L tokens of a slot, N rows, H key/value heads, D head size, T tokens.
"""

# ruff: noqa: N803 (tensor names carry their shape)
from __future__ import annotations

import dataclasses

import torch


@dataclasses.dataclass(frozen=True, slots=True)
class LayerShape:
    """Heads and head sizes of one layer's keys and values."""

    num_heads: int
    key_size: int
    value_size: int

    @property
    def elements_per_token(self) -> int:
        return self.num_heads * (self.key_size + self.value_size)


@dataclasses.dataclass(frozen=True, slots=True)
class ParkedKV:
    """A slot's first `num_tokens` tokens, copied out bit by bit: per layer keys and values, THD."""

    num_tokens: int
    keys: list[torch.Tensor]
    values: list[torch.Tensor]


class KVSlots:
    """`num_slots` slots of `length` tokens for every layer, and one spare row for padding.

    Zeroed at first, so that whatever is masked away is finite: what attention multiplies by zero
    must not be a NaN.
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
        self.bytes_per_token = sum(s.elements_per_token for s in shapes) * dtype.itemsize
        self.spare_row = num_slots * length
        num_rows = self.spare_row + 1

        def rows(num_heads: int, size: int) -> torch.Tensor:
            return torch.zeros(num_rows, num_heads, size, dtype=dtype, device=device)

        self._keys_NHD = [rows(s.num_heads, s.key_size) for s in shapes]
        self._values_NHD = [rows(s.num_heads, s.value_size) for s in shapes]
        self._keys_SHLD = [self._by_slot(rows) for rows in self._keys_NHD]
        self._values_SHLD = [self._by_slot(rows) for rows in self._values_NHD]

    def _by_slot(self, rows_NHD: torch.Tensor) -> torch.Tensor:
        _, num_heads, size = rows_NHD.shape
        slots = rows_NHD[: self.spare_row].view(self.num_slots, self.length, num_heads, size)
        return slots.transpose(1, 2)

    @property
    def reserved_bytes(self) -> int:
        return (self.spare_row + 1) * self.bytes_per_token

    def row(self, slot: int, position: int) -> int:
        """The row that holds a slot's token at a position."""
        return slot * self.length + position

    def write_rows(
        self, layer: int, rows_N: torch.Tensor, k_NHD: torch.Tensor, v_NHD: torch.Tensor
    ) -> None:
        """Store one token per row number."""
        self._keys_NHD[layer].index_copy_(0, rows_N, k_NHD)
        self._values_NHD[layer].index_copy_(0, rows_N, v_NHD)

    def write_span(
        self, layer: int, slot: int, start: int, k_HTD: torch.Tensor, v_HTD: torch.Tensor
    ) -> None:
        """Store consecutive tokens of one slot."""
        end = start + k_HTD.shape[1]
        self._keys_SHLD[layer][slot, :, start:end].copy_(k_HTD)
        self._values_SHLD[layer][slot, :, start:end].copy_(v_HTD)

    def read(self, layer: int, slots: slice, span: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of keys and values, SHTD, of adjacent slots and positions."""
        return self._keys_SHLD[layer][slots, :, span], self._values_SHLD[layer][slots, :, span]

    def park(self, slot: int, num_tokens: int) -> ParkedKV:
        """Copy a slot out, to free it for another request."""
        span = slice(self.row(slot, 0), self.row(slot, num_tokens))
        return ParkedKV(
            num_tokens,
            [rows[span].clone() for rows in self._keys_NHD],
            [rows[span].clone() for rows in self._values_NHD],
        )

    def restore(self, slot: int, parked: ParkedKV) -> None:
        """Put a parked slot back, into any slot."""
        span = slice(self.row(slot, 0), self.row(slot, parked.num_tokens))
        for rows, kept in zip(self._keys_NHD, parked.keys, strict=True):
            rows[span].copy_(kept)
        for rows, kept in zip(self._values_NHD, parked.values, strict=True):
            rows[span].copy_(kept)

    def clear(self, slot: int) -> None:
        """Zero a slot whose contents may not be finite."""
        for rows in (*self._keys_SHLD, *self._values_SHLD):
            rows[slot].zero_()
