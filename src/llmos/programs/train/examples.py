"""Encoded examples and the order they are learned in: all of it follows from the seed.

A batch is made of examples of like length, so little of it is padding; which ones, and in which
order the batches come, is drawn anew for every epoch from the seed alone. So a run that goes on in
the middle of an epoch finds the same batches, whatever was drawn from other generators meanwhile.
"""
# ruff: noqa: N806 - tensor names end in shapes: Batch, Length

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

Batch = dict[str, torch.Tensor]
Collate = Callable[[list[Mapping[str, Any]], np.random.Generator], Batch]

WEIGHT = "weight"
"""Of a batch: what its mean counts, where that is not 1."""

WINDOW_BATCHES = 50
"""Lengths are compared among so many batches' worth of examples."""


class Examples(Dataset[Batch]):
    """Rows of features, made a batch by `collate`. `lengths` are in tokens.

    `epoch` is part of what `collate` may draw by, as the rows' numbers are.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        lengths: Sequence[int],
        collate: Collate,
        seed: int = 0,
    ) -> None:
        self.rows = rows
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.collate = collate
        self.seed = seed
        self.epoch = 0
        self.num_tokens = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Batch:
        return self.batch([number])

    def __getitems__(self, numbers: list[int]) -> Batch:
        """A whole batch at once: what DataLoader asks for where it can."""
        whole = numbers.whole if isinstance(numbers, Part) else numbers
        self.num_tokens += int(self.lengths[whole].sum())
        batch = self.batch(numbers)
        if isinstance(numbers, Part) and numbers.weight != 1:
            batch[WEIGHT] = torch.tensor(numbers.weight)
        return batch

    def head(self, number: int) -> Examples:
        """The first ones alone."""
        lengths = self.lengths[:number].tolist()
        return Examples(self.rows[:number], lengths, self.collate, self.seed)

    def batch(self, numbers: Sequence[int]) -> Batch:
        """One batch, as it is made of these rows in this epoch."""
        words = [self.seed, self.epoch, *numbers]
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
        return self.collate([self.rows[number] for number in numbers], rng)


class Part(list[int]):
    """One process's rows of a batch, `whole`: `weight` times the mean over them, averaged over all
    processes, is the mean over all rows. Where rows are fewer than processes, one of them stands
    in, and weighs nothing."""

    def __init__(self, whole: list[int], rank: int, size: int) -> None:
        least, more = divmod(len(whole), size)
        begin = rank * least + min(rank, more)
        end = begin + least + (rank < more)
        super().__init__(whole[begin:end] or whole[:1])
        self.whole = whole
        self.weight = (end - begin) * size / len(whole)


class Order(Sampler[list[int]]):
    """Batches of row numbers, one epoch after another; of `size` processes, the part of one."""

    def __init__(
        self, examples: Examples, batch_size: int, seed: int, rank: int = 0, size: int = 1
    ) -> None:
        self._examples = examples
        self._rank = rank
        self._size = size
        self.batch_size = batch_size
        self._seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Before it is iterated."""
        self._examples.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._examples) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        lengths, size = self._examples.lengths, self.batch_size
        rng = np.random.Generator(
            np.random.Philox(np.random.SeedSequence([self._seed, self._examples.epoch]))
        )
        drawn = rng.permutation(len(lengths))
        window = size * WINDOW_BATCHES
        batches: list[list[int]] = []
        for at in range(0, len(drawn), window):
            part = drawn[at : at + window]
            part = part[np.argsort(lengths[part], kind="stable")]
            batches += [part[i : i + size].tolist() for i in range(0, len(part), size)]
        for number in rng.permutation(len(batches)).tolist():
            batch = batches[number]
            yield batch if self._size == 1 else Part(batch, self._rank, self._size)


def by_length(examples: Examples, batch_size: int) -> Iterator[list[int]]:
    """Every row once, long ones first, to be measured on."""
    order = np.argsort(-examples.lengths, kind="stable").tolist()
    for at in range(0, len(order), batch_size):
        yield order[at : at + batch_size]


class Loader(DataLoader[Batch]):
    """In this process: batches are made in less time than it takes to send them from another.

    It has a generator of its own: making an iterator draws from one, and the global one is the
    model's.
    """

    def __init__(self, examples: Examples, order: Order) -> None:
        own = torch.Generator().manual_seed(0)
        super().__init__(examples, batch_sampler=order, collate_fn=_as_is, generator=own)
        self._order = order

    def set_epoch(self, epoch: int) -> None:
        """Trainer calls it before every epoch."""
        self._order.set_epoch(epoch)


def _as_is(batch: Any) -> Any:
    return batch


def padded(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    """Rows of numbers as one tensor, as wide as the longest."""
    longest = max(map(len, rows))
    made_BL = np.full((len(rows), longest), fill, dtype=np.int64)
    for number, row in enumerate(rows):
        made_BL[number, : len(row)] = row
    return torch.from_numpy(made_BL)


def mask_of(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """1 where a padded row has something."""
    lengths_B1 = np.fromiter(map(len, rows), dtype=np.int64)[:, None]
    places_1L = np.arange(int(lengths_B1.max()))[None, :]
    return torch.from_numpy((places_1L < lengths_B1).astype(np.int64))
