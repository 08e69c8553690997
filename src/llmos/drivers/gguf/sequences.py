"""Where a request's keys and values lie: in one of llama.cpp's sequences, or as its state."""

from __future__ import annotations

from llmos.drivers.gguf.engine import Engine
from llmos.drivers.gguf.request import Request
from llmos.errors import EngineFailed


class Sequences:
    """The engine's sequences as the slots of `drivers.seats`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.num_slots = engine.num_slots

    def seat(self, request: Request, slot: int) -> bool:
        """Always there is room. Raises EngineFailed."""
        if request.parked is not None:
            try:
                self._engine.restore(slot, request.parked)
            except EngineFailed:
                self._engine.forget(slot)
                raise
            request.parked = None
        return True

    def leave(self, request: Request, *, broken: bool = False) -> None:
        """The sequence is empty then, whatever was in it."""
        assert request.slot is not None
        self._engine.forget(request.slot)

    def set_aside(self, request: Request) -> None:
        """As the state of the sequence, which is what a snapshot of it has."""
        assert request.slot is not None
        if request.num_cached:
            request.parked = self._engine.state(request.slot)
        self._engine.forget(request.slot)
