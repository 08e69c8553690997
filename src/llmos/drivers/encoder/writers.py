"""Groups of texts that are being made: who may begin, who joins whom, and what a step brings."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch

from llmos.drivers.encoder.columns import ROOM
from llmos.drivers.encoder.compute import Computer
from llmos.drivers.encoder.decode import Decoder, num_beams_of
from llmos.drivers.encoder.groups import Group, Writing
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.work import Request, Work
from llmos.drivers.native.failures import mapped
from llmos.errors import EngineFailed
from llmos.weights.itemscratch import DECODED_TOKENS


class Writers:
    """Of one model. At most `LIMITS.groups`, of texts that are alike enough to be made side by
    side: as many beams, not much unlike in what they read and have written."""

    def __init__(self, computer: Computer, decoder: Decoder) -> None:
        self._computer = computer
        self._decoder = decoder
        self.groups: list[Group] = []

    @property
    def can_advance(self) -> bool:
        """Somebody would write a token now."""
        return any(not group.is_paused for group in self.groups)

    @property
    def num_writing(self) -> int:
        """Texts that a step brings a token."""
        return sum(len(group.rows) for group in self.groups if not group.is_paused)

    def most_of(self, work: Work) -> int:
        """Tokens that its text may have, or twice as many less one: texts of about one length."""
        return 1 << (self._decoder.most_of(work) - 1).bit_length()

    def room(self, first: Work) -> int:
        """Rows like this one that may begin now, with what is reserved for all of them. One may
        where nobody else goes on, however much those hold who are paused."""
        going = [group for group in self.groups if not group.is_paused]
        into = [group for group in going if self._may_join(first, group)]
        if len(going) >= LIMITS.groups + bool(into):
            return 0
        count, most = num_beams_of(first), self.most_of(first)
        read = _longest(first)
        if not into:
            each = count * (read + most + ROOM)
            room = min(self._room_beside() // each, LIMITS.batch_rows)
            return room if going else max(1, room)
        group = min(into, key=lambda one: one.num_columns)
        read = group.num_read if group.shape else max(read, group.num_read)
        each = count * (read + max(most, group.most) + ROOM)
        room = min(self._room_beside(group) // each, LIMITS.batch_rows) - len(group.rows)
        return max(0, min(room, LIMITS.batch_tokens // group.num_columns))

    def _may_join(self, work: Work, group: Group) -> bool:
        """With others about as long as it is."""
        if (group.num_beams, group.shape) != (num_beams_of(work), work.row.shape):
            return False
        if group.has_begun and not self._decoder.can_join:
            return False
        lengths = (int(work.row.length / LIMITS.most_padding), _longest(work))
        return bool(group.shape) or all(_is_near(group.num_read, length) for length in lengths)

    def _room_beside(self, *but: Group) -> int:
        """Of what is reserved, what all groups but these leave."""
        return DECODED_TOKENS - sum(_cost(one, one) for one in self.groups if one not in but)

    def begin(self, batch: list[Work]) -> None:
        """Read the rows; they write from the next step on. Raises EngineFailed."""
        states, mask = self._computer.encode(batch)
        with mapped(), torch.inference_mode():
            fresh = self._decoder.begin(batch, states, mask)
            for group in self.groups:
                if not group.has_begun and self._go_together(group, fresh):
                    group.absorb(fresh)
                    return
        self.groups.append(fresh)

    def advance(self) -> list[tuple[Work, Any]]:
        """A token for everybody; of rows that have ended, their tokens and why, or an error."""
        found: list[tuple[Work, Any]] = []
        self._part()
        for group in self.groups:
            if group.is_paused:
                continue
            try:
                with mapped(), torch.inference_mode():
                    ended = self._decoder.advance(group)
            except EngineFailed as error:
                found += [(row.work, error) for row in group.rows]
                group.rows = []
            else:
                found += [(row.work, self._result(row)) for row in ended]
        self.groups = [group for group in self.groups if group.rows]
        self._join()
        return found

    def _result(self, row: Writing) -> tuple[list[int], str]:
        tokens = row.tokens
        is_whole = tokens[-1] in self._decoder.eos and not row.is_cut
        return tokens, "stop" if is_whole else "length"

    def forget(self, request: Request) -> None:
        """Its rows leave the groups they are in."""
        for group in self.groups:
            gone = [row for row in group.rows if row.work.request is request]
            if gone:
                with torch.inference_mode():
                    group.leave(gone)
        self.groups = [group for group in self.groups if group.rows]

    def _part(self) -> None:
        """Who is paused stands aside, with what it has written."""
        for group in [*self.groups]:
            paused = [row for row in group.rows if row.work.request.is_paused]
            if paused and not group.is_paused:
                with torch.inference_mode():
                    self.groups.append(group.part(paused))

    def _join(self) -> None:
        """Groups that go well together become one, the younger at the end of the older."""
        if not self._decoder.can_join:
            return
        for pair in combinations([*self.groups], 2):
            young, old = sorted(pair, key=lambda group: group.num_columns)
            if not all(one in self.groups and one.has_begun for one in pair):
                continue
            if young.is_paused == old.is_paused and self._go_together(old, young):
                with torch.inference_mode():
                    old.absorb(young)
                self.groups.remove(young)

    def _go_together(self, one: Group, other: Group) -> bool:
        return (
            (one.num_beams, one.shape) == (other.num_beams, other.shape)
            and _is_near(one.num_read, other.num_read)
            and len(one.rows) + len(other.rows) <= LIMITS.batch_rows
            and one.num_columns * len(other.rows) <= LIMITS.batch_tokens
            and _cost(one, other) <= self._room_beside(one, other)
        )


def _cost(one: Group, other: Group) -> int:
    """Tokens of all places of two groups side by side; of one, where they are the same."""
    num_rows = len(one.rows) + (len(other.rows) if other is not one else 0)
    each = max(one.num_read, other.num_read) + max(one.most, other.most) + ROOM
    return num_rows * one.num_beams * each


def _longest(work: Work) -> int:
    """What a row may be read as, in a batch that begins with this one."""
    return max(LIMITS.free_tokens, int(work.row.length * LIMITS.most_padding))


def _is_near(num_read: int, other: int) -> bool:
    """So that nobody is padded for nothing."""
    longer, shorter = max(num_read, other), min(num_read, other)
    return longer <= max(LIMITS.near_tokens, 2 * shorter)
