"""A replica's snapshots: of whom, for whom, and which of them it still answers for."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import ReplicaSpec
from llmos.abi.ids import new_id
from llmos.abi.inference import Usage, WorkItem
from llmos.abi.snapshot import SnapshotHeader
from llmos.drivers.snapshots import file
from llmos.drivers.snapshots.file import SnapshotReader, rejected
from llmos.errors import SnapshotRejected, StorageError

MAX_REMEMBERED = 4096
"""Suspended requests whose files an abort still finds; beyond it the oldest are forgotten."""

HINTS = frozenset({"service_class", "trace_parent"})
"""What of an item may have changed while it was suspended."""

State = TypeVar("State", bound=msgspec.Struct)

_NAMES = {"cache_salt": "owner", "tokens": "prompt"}


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """What must be equal wherever a request goes on."""

    driver: str
    weights_digest: str
    dtype: str
    device: str
    num_threads: int


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a request is: tokens drawn, and tokens whose keys and values are kept.

    `cached_tokens` as in `Usage`: those found in a prefix cache when it began.
    """

    generated: list[int]
    num_cached: int
    cached_tokens: int = 0


class Shelf:
    """Writes and opens snapshots for one driver. Knows no tensors."""

    def __init__(self, spec: ReplicaSpec, identity: Identity) -> None:
        own = spec.scratch and str(Path(spec.scratch) / "snapshots")
        self._folder = spec.snapshots or own
        self._identity = identity
        self._written: OrderedDict[str, tuple[str, Usage]] = OrderedDict()

    def write(  # noqa: PLR0917 (all that a file holds, and where)
        self,
        item: WorkItem,
        progress: Progress,
        state: msgspec.Struct,
        payload: Iterable[memoryview],
        payload_bytes: int,
        folder: str = "",
    ) -> SnapshotRef:
        """A new file, in `folder` if it is named. Raises DiskFull, StorageError; then none is."""
        folder = folder or self._folder
        if not folder:
            raise StorageError("this replica was given no folder for snapshots")
        header = SnapshotHeader(
            snapshot_id=new_id("snp"),
            **dataclasses.asdict(self._identity),
            item=item,
            generated=array("i", progress.generated).tobytes(),
            num_cached=progress.num_cached,
            payload_bytes=payload_bytes,
            state=msgspec.Raw(msgspec.msgpack.encode(state)),
        )
        name = f"{header.snapshot_id}.snap"
        size_bytes, digest = file.write(Path(folder), name, header, payload)
        path = str(Path(folder) / name)
        usage = Usage(len(item.tokens) // 4, len(progress.generated), progress.cached_tokens)
        self._written[item.request_id] = path, usage
        if len(self._written) > MAX_REMEMBERED:
            self._written.popitem(last=False)
        return _reference(header, path, size_bytes, digest)

    @contextlib.contextmanager
    def open(self, item: WorkItem, ref: SnapshotRef) -> Iterator[SnapshotReader]:
        """A snapshot of this item that this replica may go on from. Raises SnapshotRejected.

        The payload is checked by reading it.
        """
        with file.open_snapshot(ref.path, ref.size_bytes) as reader:
            header = reader.header
            if _reference(header, ref.path, ref.size_bytes, ref.digest) != ref:
                raise rejected("differs", "is not the one that its reference names")
            here = dataclasses.asdict(self._identity)
            differing = {
                name: (getattr(header, name), value)
                for name, value in here.items()
                if getattr(header, name) != value
            }
            refuse_differing(differing, _compare(header.item, item))
            yield reader

    def forget(self, request_id: str) -> None:
        """It goes on here: its snapshot is not ours to delete any more."""
        self._written.pop(request_id, None)

    def drop(self, request_id: str) -> Usage | None:
        """Delete the file of a request that was suspended here: what it had used. None: unknown."""
        path, usage = self._written.pop(request_id, (None, None))
        if path is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108 (a string as it is)
        return usage


def tokens_of(header: SnapshotHeader) -> list[int]:
    """The tokens drawn so far. Raises SnapshotRejected."""
    if len(header.generated) % 4:
        raise rejected("damaged", "holds part of a token")
    generated = array("i")
    generated.frombytes(header.generated)
    return generated.tolist()


def decode_state(reader: SnapshotReader, kind: type[State]) -> State:
    """The driver's own part of the header. Raises SnapshotRejected."""
    try:
        return msgspec.msgpack.decode(reader.header.state, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise rejected("damaged", f"has a state that is none: {error}") from error


def refuse_differing(
    differing: dict[str, tuple[object, object]], unsaid: list[str] | None = None
) -> None:
    """Raises SnapshotRejected naming each field, with its value there and here; the values of
    `unsaid` are not shown, for the snapshot may be somebody else's."""
    told = [f"{name} ({there}, here {here})" for name, (there, here) in differing.items()]
    names = [*differing, *(unsaid or [])]
    if names:
        raise SnapshotRejected(
            f"the snapshot differs in {', '.join(told + (unsaid or []))}",
            details={"reason": "differs", "differs": names},
        )


def _compare(there: WorkItem, here: WorkItem) -> list[str]:
    return [
        _NAMES.get(name, name)
        for name in there.__struct_fields__
        if name not in HINTS and getattr(there, name) != getattr(here, name)
    ]


def _reference(header: SnapshotHeader, path: str, size_bytes: int, digest: str) -> SnapshotRef:
    return SnapshotRef(
        snapshot_id=header.snapshot_id,
        path=path,
        size_bytes=size_bytes,
        digest=digest,
        weights_digest=header.weights_digest,
        dtype=header.dtype,
        driver=header.driver,
        num_threads=header.num_threads,
        owner=header.owner,
    )
