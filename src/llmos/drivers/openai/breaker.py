"""A circuit breaker: an endpoint that fails is left alone for a while. Pure; times are given.

    closed ── failures in a row ──▶ open ── open_s ──▶ half-open ── success ──▶ closed
                                      ▲                     └──── failure ──┐
                                      └─────────────────────────────────────┘

Source: M. Nygard, *Release It!*, "Circuit Breaker".
"""

from __future__ import annotations

import enum

from llmos.abi.remote import Breaking


class Circuit(enum.StrEnum):
    """Where a breaker is."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Of one endpoint. Who asks calls `begin`, and then exactly one of the others.

    An answer that was begun before the circuit opened says nothing that closes it.
    """

    def __init__(self, config: Breaking) -> None:
        self._config = config
        self._num_failures = 0
        self._open_until_s: float | None = None
        self._held_until_s = 0.0
        self._is_probing = False

    def state(self, now_s: float) -> Circuit:
        """As it is at this time."""
        if self._open_until_s is None:
            return Circuit.CLOSED
        return Circuit.OPEN if now_s < self._open_until_s else Circuit.HALF_OPEN

    def wait_s(self, now_s: float) -> float:
        """Until it may be asked; 0: now. While a probe is on its way: until one would be due."""
        held_s = max(0.0, self._held_until_s - now_s)
        state = self.state(now_s)
        if state is Circuit.OPEN:
            assert self._open_until_s is not None
            return max(held_s, self._open_until_s - now_s)
        if state is Circuit.HALF_OPEN and self._is_probing:
            return max(held_s, self._config.open_s)
        return held_s

    def begin(self, now_s: float) -> bool:
        """Somebody asks, whom `wait_s` let. True: by what comes of it the circuit is decided."""
        is_probe = self.state(now_s) is Circuit.HALF_OPEN
        self._is_probing = self._is_probing or is_probe
        return is_probe

    def succeeded(self, is_probe: bool) -> None:
        """It answers."""
        if is_probe or self._open_until_s is None:
            self._num_failures, self._open_until_s = 0, None
        if is_probe:
            self._is_probing = False

    def failed(self, now_s: float, is_probe: bool) -> None:
        """It does not."""
        self._num_failures += 1
        if is_probe:
            self._is_probing = False
        if is_probe or self._num_failures >= self._config.failures:
            self._open_until_s = now_s + self._config.open_s

    def dropped(self, is_probe: bool) -> None:
        """Nobody knows: who asked went away."""
        if is_probe:
            self._is_probing = False

    def hold(self, now_s: float, for_s: float) -> None:
        """It has asked to be left alone so long; that is no failure."""
        self._held_until_s = max(self._held_until_s, now_s + for_s)
