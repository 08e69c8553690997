"""A model's weights in memory: given back while a replica is parked, and had again.

Where the type is that of the file, Transformers' tensors are views of a private mapping of it:
dropping their pages costs no copy, and having them again no reading, as long as the system still
caches the file. All other weights (cast, packed, on another device) are freed and read anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from llmos.drivers.native import pages
from llmos.drivers.native.pages import FileRange
from llmos.errors import LoadFailed

_WORTH_BYTES = 64 << 10
"""A tensor smaller than this is kept: what is computed and not read (RoPE's angles) is small."""

Identity = tuple[int, int, int, int]


def identities(folder: Path) -> dict[str, Identity]:
    """What tells whether a folder's files are still the ones that were read. Raises LoadFailed.

    Not the time of the inode's last change: it moves when a link to a blob comes or goes.
    """
    try:
        found = {path.name: path.stat() for path in folder.iterdir() if path.is_file()}
    except OSError as error:
        raise LoadFailed(f"{folder.name}: {error.strerror}") from error
    return {n: (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for n, s in found.items()}


def check_unchanged(folder: Path, then: dict[str, Identity], now: dict[str, Identity]) -> None:
    """Raises LoadFailed naming the file that is another one now, or gone."""
    for name, identity in sorted(then.items()):
        if now.get(name) != identity:
            what = "has changed" if name in now else "is gone"
            raise LoadFailed(f"{folder.name}: {name} {what} while the model was parked")


class Weights:
    """All parameters and buffers of a model. `read` makes the model once more from `folder`."""

    def __init__(
        self,
        model: torch.nn.Module,
        folder: Path,
        files: dict[str, Identity],
        read: Callable[[], torch.nn.Module],
    ) -> None:
        self._model = model
        self._folder = folder
        self._files = {n: i for n, i in files.items() if n.endswith((".safetensors", ".json"))}
        self._read = read
        self._dropped: list[FileRange] = []
        self._freed = False
        self._locate()

    def _locate(self) -> None:
        """Which storages lie in mappings of files, and how large those are.

        `size_bytes` are all, on whatever device; `own_bytes` those of no file, in host memory.
        """
        found = pages.file_ranges(self._folder)
        self._ranges: list[FileRange] = []
        self._own: set[int] = set()
        self.size_bytes = self.mapped_bytes = self.own_bytes = 0
        for address, storage in self._storages().items():
            self.size_bytes += storage.nbytes()
            on_host = storage.device.type == "cpu"
            home = next((r for r in found if on_host and r.begin <= address < r.end), None)
            if home is None:
                self._own.add(address)
                self.own_bytes += storage.nbytes() if on_host else 0
            elif home not in self._ranges:
                self._ranges.append(home)
                self.mapped_bytes += home.size_bytes

    def _tensors(self, model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
        yield from model.named_parameters()
        yield from model.named_buffers()

    def _storages(self) -> dict[int, torch.UntypedStorage]:
        """By address: a tied head counts once."""
        storages = (tensor.untyped_storage() for _, tensor in self._tensors(self._model))
        return {storage.data_ptr(): storage for storage in storages if storage.nbytes()}

    def resident_bytes(self) -> int:
        """Of the mappings. Takes milliseconds."""
        return sum(resident for resident, _ in pages.counted(self._ranges).values())

    def park(self) -> None:
        """Give back what can be had again. The model cannot run until `unpark`."""
        counted = pages.counted(self._ranges)
        # a page that was written to is not the file's any more: dropping it would lose it
        self._dropped = [r for r, (_, changed) in counted.items() if not changed]
        pages.drop(self._dropped)
        for _, tensor in self._tensors(self._model):
            storage = tensor.untyped_storage()
            if storage.data_ptr() in self._own and storage.nbytes() >= _WORTH_BYTES:
                tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
                self._freed = True

    def unpark(self) -> None:
        """All weights resident, with the bits they had. Raises LoadFailed, ModelRejected."""
        check_unchanged(self._folder, self._files, identities(self._folder))
        if self._freed:
            self._read_again()
        try:
            pages.populate(self._dropped)
        except OSError as error:
            raise LoadFailed(f"{self._folder.name}: {error.strerror}") from error
        self._dropped = []

    def _read_again(self) -> None:
        fresh = dict(self._tensors(self._read()))
        for name, tensor in self._tensors(self._model):
            if not tensor.numel():
                tensor.data = fresh[name].data
        self._freed = False
        self._locate()
