"""The ledger of one device: who holds how many of its bytes."""

from __future__ import annotations

from collections.abc import Mapping


class Ledger:
    """What each owner may use, from before it allocates until after it has given back.

        reserve ──→ bind ──→ shrink ──────────────────→ release
        a bound     (its     to what      ▲        │
                    own act) was measured │        ▼
                                   grow (unpark) ← shrink (park)

    `swell` is the only way past the budget: an owner measured above what it reserved uses what it
    uses, and the ledger says by how much it is overdrawn, so that someone makes room. Every
    operation is O(1). It knows nothing of what its owners are.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._held: dict[str, int] = {}
        self._reserved_bytes = 0

    @property
    def reserved_bytes(self) -> int:
        return self._reserved_bytes

    @property
    def free_bytes(self) -> int:
        """Negative while it is overdrawn."""
        return self.budget_bytes - self._reserved_bytes

    def holds(self, owner: str) -> int:
        """0: nothing, or no entry at all."""
        return self._held.get(owner, 0)

    def owners(self) -> Mapping[str, int]:
        """In the order of their reservations; to be read only."""
        return self._held

    def reserve(self, owner: str, size_bytes: int) -> None:
        """Over-commit is a bug of the caller."""
        assert 0 <= size_bytes <= self.free_bytes, "over-commit"
        assert owner not in self._held, "reserved twice"
        self._set(owner, 0, size_bytes)

    def shrink(self, owner: str, size_bytes: int) -> int:
        """Never above what is held. What stays reserved."""
        assert size_bytes >= 0
        held = self._held[owner]
        return self._set(owner, held, min(held, size_bytes))

    def grow(self, owner: str, size_bytes: int) -> None:
        """To a larger size, which fits."""
        held = self._held[owner]
        assert size_bytes >= held, "grows to less"
        assert size_bytes == held or size_bytes - held <= self.free_bytes, "over-commit"
        self._set(owner, held, size_bytes)

    def swell(self, owner: str, size_bytes: int) -> int:
        """To what was measured above what is held, fit or not. By how much it is overdrawn now."""
        held = self._held[owner]
        self._set(owner, held, max(held, size_bytes))
        return max(0, -self.free_bytes)

    def release(self, owner: str) -> int:
        """What comes free. An owner without an entry is a bug: KeyError."""
        size_bytes = self._held.pop(owner)
        self._reserved_bytes -= size_bytes
        return size_bytes

    def _set(self, owner: str, held: int, size_bytes: int) -> int:
        self._held[owner] = size_bytes
        self._reserved_bytes += size_bytes - held
        return size_bytes
