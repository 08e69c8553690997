"""What `ps --memory` shows: every device's ledger, who waits for room, snapshots, replicas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llmos.cli.duration import FOREVER_S
from llmos.cli.find import short
from llmos.cli.text import age, narrowed, one_line, seconds, size, table

if TYPE_CHECKING:
    from llmos.abi.memory import DeviceMemory, Holding, LackOfRoom, MemoryInfo
    from llmos.abi.syscall import ReplicaInfo

HOLDINGS = ("OWNER", "KIND", "WHAT", "STATE", "RESERVED", "MEASURED")
REPLICAS = ("REPLICA", "MODEL", "DTYPE", "STATE", "ROWS", "WAIT", "KV USED", "KEPT", "REASON")
MORE = (
    "PAUSED",
    "KV CACHED",
    "RESERVED",
    "RESIDENT",
    "WEIGHTS",
    "DEVICE",
    "RESTARTS",
    "AGE",
)
MAX_OWNER_CHARS = 12
_WHAT = HOLDINGS.index("WHAT")
_MODEL = REPLICAS.index("MODEL")

Rows = Sequence[Sequence[str]]


def blocks(
    memory: MemoryInfo, replicas: Sequence[ReplicaInfo], width: int | None, *, wide: bool = False
) -> Iterator[str]:
    """Blocks of lines. With a `width`, tables are cut to it; `wide` has every column, uncut."""
    if wide:
        width = None
    for device in memory.devices:
        yield _device(device, width)
    if memory.lacking:
        yield "\n".join(_lack(lack) for lack in memory.lacking)
    yield _snapshots(memory)
    if replicas:
        rows = [_replica_row(r, wide=wide) for r in replicas]
        headers = (*REPLICAS[:-1], *MORE, REPLICAS[-1]) if wide else REPLICAS
        yield _cut(headers, rows, width, (len(headers) - 1, _MODEL))
        if notes := [note for r in replicas for note in _notes(r, wide=wide)]:
            yield "\n".join(notes)


def _device(device: DeviceMemory, width: int | None) -> str:
    """Who holds most comes first."""
    available = "not measured"
    if device.available_bytes is not None:
        available = size(device.available_bytes)
    head = one_line(
        f"{device.device}: {size(device.total_bytes)} in all, budget {size(device.budget_bytes)}, "
        f"reserved {size(device.reserved_bytes)}, available {available}"
    )
    if not device.holdings:
        return f"{head}\nnothing is held"
    held = sorted(device.holdings, key=_weight, reverse=True)
    return f"{head}\n{_cut(HOLDINGS, [_holding_row(h) for h in held], width, (_WHAT,))}"


def _weight(holding: Holding) -> tuple[int, int]:
    return holding.reserved_bytes, holding.measured_bytes or 0


def _holding_row(h: Holding) -> tuple[str, ...]:
    owner = h.owner if len(h.owner) <= MAX_OWNER_CHARS else f"…{short(h.owner)}"
    return (
        owner,
        h.kind,
        h.what,
        h.state or "-",
        size(h.reserved_bytes),
        size(h.measured_bytes),
    )


def _lack(lack: LackOfRoom) -> str:
    return one_line(
        f"{lack.model} waits for room: {size(lack.need_bytes)}, for {seconds(lack.waited_s)}: "
        f"{lack.reason}"
    )


def _snapshots(memory: MemoryInfo) -> str:
    return (
        f"snapshots on the disk: {memory.num_snapshots}, {size(memory.disk_snapshot_bytes)}; "
        f"{size(memory.disk_free_bytes)} free"
    )


def _replica_row(r: ReplicaInfo, *, wide: bool) -> tuple[str, ...]:
    memory = r.memory
    row = (
        r.replica_id,
        r.model,
        r.dtype or "-",
        r.state,
        f"{r.num_running}/{r.num_slots}",
        str(r.num_waiting),
        size(memory.kv_used_bytes if memory else None),
        kept(r),
    )
    if not wide:
        return (*row, r.reason)
    return (
        *row,
        str(r.num_paused),
        size(memory.kv_cached_bytes if memory else None),
        size(r.reserved_bytes),
        size(memory.rss_bytes if memory else None),
        size(memory.weights_bytes if memory else None),
        r.device,
        str(r.num_restarts),
        age(r.since_ns),
        r.reason,
    )


def _notes(r: ReplicaInfo, *, wide: bool) -> Iterator[str]:
    """Why its weights have their type, what runs it, how well its tokens are guessed, and what is
    slower than it could be."""
    if wide and r.dtype_reason:
        yield one_line(f"{r.model} is {r.dtype}: {r.dtype_reason}")
    if wide and r.engine:
        yield one_line(f"{r.model} is run by {r.engine}")
    if r.draft or (wide and r.num_guessed):
        by = f" by {r.draft}" if r.draft else ""
        yield one_line(
            f"{r.model}: {r.num_guessed} tokens were guessed ahead{by}, {r.num_accepted} came"
        )
    if r.detail:
        yield one_line(f"{r.model}: {r.detail}")
    yield from (one_line(f"warning: {r.model}: {warning}") for warning in r.warnings)


def kept(replica: ReplicaInfo) -> str:
    """How long it stays when nobody uses it."""
    if replica.pinned:
        return "pinned"
    if replica.keep_alive_s is not None and replica.keep_alive_s >= FOREVER_S:
        return "forever"
    return seconds(replica.keep_alive_s)


def _cut(headers: Sequence[str], rows: Rows, width: int | None, elastic: tuple[int, ...]) -> str:
    return table(headers, rows if width is None else narrowed(headers, rows, width, elastic))
