"""The groups of texts that are being made, and what happens to them in a step."""

from __future__ import annotations

from typing import Any

import msgspec
import torch

from llmos.drivers.encoder.compute import Computer
from llmos.drivers.encoder.decode import Decoder, Group, Writing, num_beams_of
from llmos.drivers.encoder.limits import LIMITS, EncoderLimits
from llmos.drivers.encoder.work import Request, Work
from llmos.drivers.native.failures import mapped
from llmos.errors import EngineFailed


class Writers:
    """At most `LIMITS.groups` of them, each of rows that began together."""

    def __init__(self, computer: Computer, decoder: Decoder) -> None:
        self._computer = computer
        self._decoder = decoder
        self.groups: list[Group] = []

    @property
    def has_room(self) -> bool:
        """One more group may begin."""
        return len(self.groups) < LIMITS.groups

    @property
    def can_advance(self) -> bool:
        """Somebody would write a token now."""
        return any(not group.is_paused for group in self.groups)

    def limits(self, first: Work) -> EncoderLimits:
        """Of a new group that begins with this row."""
        most = self._decoder.most_rows(first.row.length, num_beams_of(first))
        return msgspec.structs.replace(LIMITS, batch_rows=most)

    def begin(self, batch: list[Work]) -> None:
        """Read the rows; they write from the next step on. Raises EngineFailed."""
        states, mask = self._computer.encode(batch)
        self.groups.append(self._decoder.begin(batch, states, mask))

    def advance(self) -> list[tuple[Work, Any]]:
        """A token for every group; of rows that have ended, their tokens and why, or an error."""
        found: list[tuple[Work, Any]] = []
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
                self._decoder.leave(group, gone)
        self.groups = [group for group in self.groups if group.rows]
