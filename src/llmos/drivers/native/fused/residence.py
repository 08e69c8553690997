"""The weights of a fused model in memory: pages of its files, dropped while it is parked.

Arrays of our own (quantized, cast or turned matrices, vectors) stay: having them again would take
longer than reading bytes does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmos.drivers.native import pages
from llmos.drivers.native.fused.weights import Weights
from llmos.drivers.native.pages import FileRange
from llmos.drivers.native.weights import Identity, check_unchanged, identities
from llmos.errors import LoadFailed


class Residence:
    """`own_bytes` and `mapped_bytes` as `Accounts` wants them; see `native.weights.Weights`."""

    def __init__(self, folder: Path, files: dict[str, Identity], weights: Weights) -> None:
        self._folder = folder
        self._files = {n: i for n, i in files.items() if n.endswith((".safetensors", ".json"))}
        self.own_bytes = weights.own_bytes
        self.size_bytes = weights.size_bytes
        # of files whose matrices were made into others only looked-up rows are wanted
        self._is_mapped = weights.mapped_bytes > weights.own_bytes
        self.mapped_bytes = sum(r.size_bytes for r in self._ranges)
        self.settle()

    @property
    def _ranges(self) -> list[FileRange]:
        """As they are now: the system joins and parts neighbouring mappings."""
        return pages.file_ranges(self._folder)

    def settle(self) -> None:
        """Resident, as far as forwards read it."""
        if self._is_mapped:
            self._populate()
        else:
            pages.drop(self._ranges)

    def _populate(self) -> None:
        try:
            pages.populate(self._ranges)
        except OSError as error:
            raise LoadFailed(f"{self._folder.name}: {error.strerror}") from error

    def resident_bytes(self) -> int:
        """Of the mappings. Takes milliseconds."""
        return sum(resident for resident, _ in pages.counted(self._ranges).values())

    def park(self) -> None:
        """Drop the files' pages: nothing has written to them."""
        pages.drop(self._ranges)

    def unpark(self) -> None:
        """All weights at hand. Raises LoadFailed where a file has changed."""
        check_unchanged(self._folder, self._files, identities(self._folder))
        self.settle()


class HeldTogether:
    """Weights of several models in one process, as `Accounts` wants them."""

    def __init__(self, residences: Sequence[Residence]) -> None:
        self._residences = residences
        self.own_bytes = sum(r.own_bytes for r in residences)
        self.size_bytes = sum(r.size_bytes for r in residences)
        self.mapped_bytes = sum(r.mapped_bytes for r in residences)

    def resident_bytes(self) -> int:
        """Of the mappings."""
        return sum(r.resident_bytes() for r in self._residences)


__all__ = ["HeldTogether", "Residence", "identities"]
