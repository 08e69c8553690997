"""As `ItemLoop`, for texts that are made token by token: a step is one token for everybody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmos.drivers.encoder.compute import Computer
from llmos.drivers.encoder.decode import Decoder, num_beams_of
from llmos.drivers.encoder.limits import EncoderLimits
from llmos.drivers.encoder.loop import Finish, ItemLoop
from llmos.drivers.encoder.work import Request, Work, num_given
from llmos.drivers.encoder.writers import Writers
from llmos.errors import EngineFailed


class WritingLoop(ItemLoop):
    """The requests of one model with a decoder."""

    def __init__(
        self, computer: Computer, decoder: Decoder, finish: Finish, kinds: Sequence[str]
    ) -> None:
        super().__init__(computer, finish, kinds)
        self.writers = Writers(computer, decoder)

    def can_move(self) -> bool:
        """Also while somebody writes."""
        return super().can_move() or self.writers.can_advance

    def _work(self) -> None:
        """A token for everybody who writes, and a group more where there is room for one."""
        if self.writers.has_room and (batch := self._next_batch()):
            self._isolate(self.writers.begin, batch)
        for work, result in self.writers.advance():
            if isinstance(result, EngineFailed):
                self._fail(work, result)
            else:
                work.request.num_made += len(result[0]) - num_given(work.open)
                self._take(work, result)

    def _limits(self, first: Work) -> EncoderLimits:
        return self.writers.limits(first)

    def _likeness(self, work: Work) -> Any:
        """Also as many beams."""
        return work.row.shape, num_beams_of(work)

    def _forget(self, request: Request) -> None:
        self.writers.forget(request)
