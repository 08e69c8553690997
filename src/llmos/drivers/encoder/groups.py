"""Texts that are made side by side, a token of each in a step: who is among them, and where.

A text has one place, or one for each of its beams, one beside the other. All end at the same
column, so that texts may join that began at another time; who has ended gives its places to the
last ones.

Shapes: B places, L tokens read, T columns, H hidden units.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad

from llmos.drivers.encoder.beams import Beams
from llmos.drivers.encoder.columns import ROOM, new_cache, own_layers, read_layers
from llmos.drivers.encoder.work import Work


@dataclasses.dataclass(slots=True, eq=False)
class Writing:
    """One text. `forced` are tokens that it begins with, whatever is likely; of `tokens`, that many
    are not the model's own, and `num_given` of them are a prompt that was sent. `num_read`: what
    the encoder made of its row, in tokens; `most`: tokens in all; `is_cut`: it would have gone on;
    `start`: the column of the token that every text begins with."""

    work: Work
    forced: list[int]
    most: int
    num_read: int
    num_given: int = 0
    beams: Beams | None = None
    tokens: list[int] = dataclasses.field(default_factory=list)
    is_cut: bool = False
    start: int = 0


class Group:
    """`ids_BT` are all tokens of the decoder so far, with others before a text's start; `mask_BL`
    says what is read of the encoder's states, None: all."""

    def __init__(self, rows: list[Writing], states_BLH: Any, mask_BL: Any, start: int) -> None:
        self.rows = rows
        self.num_beams = rows[0].beams.count if rows[0].beams else 1
        self.shape = rows[0].work.row.shape
        if self.num_beams > 1:
            states_BLH = states_BLH.repeat_interleave(self.num_beams, dim=0)
            mask_BL = None if mask_BL is None else mask_BL.repeat_interleave(self.num_beams, dim=0)
        self.states_BLH: torch.Tensor = states_BLH
        self.mask_BL: torch.Tensor | None = mask_BL
        device = states_BLH.device
        self.ids_BT = torch.full((len(states_BLH), 1), start, dtype=torch.long, device=device)
        self.cache: Any = new_cache()
        self.has_begun = False

    @property
    def is_paused(self) -> bool:
        """Nobody in it goes on."""
        return all(row.work.request.is_paused for row in self.rows)

    @property
    def num_columns(self) -> int:
        return self.ids_BT.shape[1]

    @property
    def num_read(self) -> int:
        return max(row.num_read for row in self.rows)

    @property
    def most(self) -> int:
        return max(row.most for row in self.rows)

    @property
    def own_mask(self) -> torch.Tensor | None:
        """BT: which columns are a place's own; None: all are."""
        starts = self._starts()
        if not any(starts):
            return None
        columns_T = torch.arange(self.num_columns, device=self.ids_BT.device)
        starts_B1 = torch.tensor(starts, device=self.ids_BT.device)[:, None]
        return (columns_T[None] >= starts_B1).long()

    @property
    def positions(self) -> list[int] | None:
        """Of each newest token in its text; None: all stand in the newest column."""
        starts = self._starts()
        return [self.num_columns - 1 - start for start in starts] if any(starts) else None

    def _starts(self) -> list[int]:
        return [row.start for row in self.rows for _ in range(self.num_beams)]

    # steps

    def begun(self) -> None:
        """After the first step nobody reads states: of them is kept how large they are."""
        if not self.has_begun:
            self.has_begun = True
            self.states_BLH = self.states_BLH[:1, :1].clone()
            self._fit()

    def add_column(self, newest: Sequence[int], sources: Sequence[int] | None = None) -> None:
        """A token for each place, which goes on from where the place in `sources` was."""
        if sources is not None and any(i != source for i, source in enumerate(sources)):
            places_B = torch.tensor(sources, device=self.ids_BT.device)
            self.ids_BT = self.ids_BT[places_B]
            for layer in own_layers(self.cache):
                layer.choose(places_B)
        column_B1 = torch.tensor(newest, dtype=torch.long, device=self.ids_BT.device)[:, None]
        self.ids_BT = torch.cat([self.ids_BT, column_B1], dim=1)

    # who is among them

    def absorb(self, other: Group) -> None:
        """All of another, which has no more columns; both have begun, or neither."""
        ahead = self.num_columns - other.num_columns
        for row in other.rows:
            row.start += ahead
        self.ids_BT = torch.cat([self.ids_BT, pad(other.ids_BT, (ahead, 0))])
        longest = max(self.num_read, other.num_read)
        if self.has_begun:
            for mine, theirs in zip(own_layers(self.cache), own_layers(other.cache), strict=True):
                mine.add(theirs, at_right=True)
            for mine, theirs in zip(read_layers(self.cache), read_layers(other.cache), strict=True):
                mine.add(theirs, at_right=False)
        else:
            both = (self.states_BLH, other.states_BLH)
            self.states_BLH = torch.cat([_longer(one, longest, 1) for one in both])
        if self.mask_BL is not None and other.mask_BL is not None:
            self.mask_BL = torch.cat(
                [_longer(one, longest, 0) for one in (self.mask_BL, other.mask_BL)]
            )
        self.rows += other.rows
        self._fit()

    def part(self, rows: list[Writing]) -> Group:
        """A group of these rows alone, which are here no more."""
        chosen = [i for i, row in enumerate(self.rows) if row in rows]
        places_B = self._places(chosen)
        made = object.__new__(Group)
        made.rows = [self.rows[i] for i in chosen]
        made.num_beams, made.shape, made.has_begun = self.num_beams, self.shape, self.has_begun
        made.states_BLH = self.states_BLH if self.has_begun else self.states_BLH[places_B]
        made.mask_BL = None if self.mask_BL is None else self.mask_BL[places_B]
        made.ids_BT = self.ids_BT[places_B]
        made.cache = new_cache()
        for layers_of in (own_layers, read_layers):
            layers_of(made.cache).extend(one.take(places_B) for one in layers_of(self.cache))
        made.cache.is_updated = dict(self.cache.is_updated)
        made._fit()
        self.leave(made.rows)
        return made

    def leave(self, gone: Sequence[Writing]) -> None:
        """Give up the places of rows that have ended."""
        left = len(self.rows) - len(gone)
        order = [i for i, row in enumerate(self.rows) if row not in gone]
        tail = [i for i in order if i >= left]
        kept = [i if self.rows[i] not in gone else tail.pop() for i in range(left)]
        moves = [(source, target) for target, source in enumerate(kept) if source != target]
        self.rows = [self.rows[i] for i in kept]
        if not kept:
            self.cache = None
            return
        places_B, count = self._places(kept), self.num_beams
        self.ids_BT = self.ids_BT[places_B]
        if self.mask_BL is not None:
            self.mask_BL = self.mask_BL[places_B]
        if not self.has_begun:
            self.states_BLH = self.states_BLH[places_B]
        of_places = [(s * count + at, t * count + at) for s, t in moves for at in range(count)]
        for layer in [*own_layers(self.cache), *read_layers(self.cache)]:
            layer.drop(left * count, of_places)
        self._fit()

    def _places(self, rows: Sequence[int]) -> torch.Tensor:
        count = self.num_beams
        places = [i * count + at for i in rows for at in range(count)]
        return torch.tensor(places, device=self.ids_BT.device)

    def _fit(self) -> None:
        """Columns that are nobody's go, where they are many."""
        unused = min(row.start for row in self.rows)
        if unused >= ROOM:
            self.ids_BT = self.ids_BT[:, unused:]
            for row in self.rows:
                row.start -= unused
            for layer in own_layers(self.cache):
                layer.trim(unused)
        if self.mask_BL is None or self.num_read == self.mask_BL.shape[1]:
            return
        self.mask_BL = self.mask_BL[:, : self.num_read]
        if not self.has_begun:
            self.states_BLH = self.states_BLH[:, : self.num_read]
        for layer in read_layers(self.cache):
            layer.narrow(self.num_read)

    @property
    def states_or_size(self) -> torch.Tensor:
        """The encoder's states, or what is as large where nobody reads them."""
        if not self.has_begun:
            return self.states_BLH
        return self.states_BLH.expand(len(self.ids_BT), self.num_read, -1)


def _longer(tensor: torch.Tensor, length: int, num_after: int) -> torch.Tensor:
    """With zeros at the end of its second dimension, after which there are so many."""
    return pad(tensor, (*(0, 0) * num_after, 0, length - tensor.shape[1]))
