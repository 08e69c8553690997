"""As `ItemLoop`, for texts that are made token by token: a step is one token for everybody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llmos.drivers.encoder.compute import Computer
from llmos.drivers.encoder.decode import Decoder, num_beams_of
from llmos.drivers.encoder.limits import LIMITS, EncoderLimits
from llmos.drivers.encoder.loop import Finish, ItemLoop
from llmos.drivers.encoder.work import Request, Work, num_given
from llmos.drivers.encoder.writers import Writers
from llmos.errors import EngineFailed

PATIENCE = 4
"""Steps that a row waits for others to begin with: few that begin cost a step more, as many do."""


class WritingLoop(ItemLoop):
    """The requests of one model with a decoder."""

    def __init__(
        self, computer: Computer, decoder: Decoder, finish: Finish, kinds: Sequence[str]
    ) -> None:
        super().__init__(computer, finish, kinds)
        self.writers = Writers(computer, decoder)
        self._num_held = 0

    def can_move(self) -> bool:
        """Also while somebody writes."""
        return super().can_move() or self.writers.can_advance

    def _work(self) -> None:
        """A token for everybody who writes, after those who begin have been read."""
        if self._is_time():
            self._begin()
        for work, result in self.writers.advance():
            if isinstance(result, EngineFailed):
                self._fail(work, result)
            else:
                work.request.num_made += len(result[0]) - num_given(work.open)
                self._take(work, result)

    def _is_time(self) -> bool:
        waiting = sum(len(one.waiting) for one in self._requests.values() if not one.is_paused)
        if not waiting:
            return False
        self._num_held += 1
        return waiting * PATIENCE >= self.writers.num_writing or self._num_held >= PATIENCE

    def _begin(self) -> None:
        """As many as there is room for, and as one step reads."""
        self._num_held = 0
        room = LIMITS.batch_tokens
        while room > 0 and (batch := self._next_batch()):
            room -= sum(work.row.length for work in batch)
            self._isolate(self.writers.begin, batch)

    def _limits(self, first: Work) -> EncoderLimits:
        return msgspec.structs.replace(LIMITS, batch_rows=self.writers.room(first))

    def _likeness(self, work: Work) -> Any:
        """Also as many beams, and about as many tokens to make."""
        return work.row.shape, num_beams_of(work), self.writers.most_of(work)

    def _forget(self, request: Request) -> None:
        self.writers.forget(request)
