"""What requests hold in the ledger besides rows: KV without a row, snapshots in memory."""

from __future__ import annotations

from llmos.kernel.core import decisions as do
from llmos.kernel.core.replica import HOST, ModelFacts, Replica
from llmos.kernel.core.request import Request
from llmos.kernel.core.state import State

HEADER_BYTES = 256 << 10
"""Of a snapshot besides keys and values: text, tokens, the item."""


def kv_owner(request: Request) -> str:
    """Of the KV that a paused request keeps on its worker."""
    return f"kv:{request.request_id}"


def hold_kv(state: State, request: Request, replica: Replica) -> None:
    """It is paused: its row may go to another, and its KV beside the rows.

    Who stalls and cannot be suspended again yet is paused whether there is room or not.
    """
    size = request.context_tokens * replica.model.kv_bytes_per_token
    ledger = state.ledgers[replica.model.device]
    if kv_owner(request) not in ledger.owners() and 0 < size <= ledger.free_bytes:
        state.reserve(kv_owner(request), {replica.model.device: size})


def has_room_for_kv(state: State, request: Request, model: ModelFacts) -> bool:
    """What a model waits for is not for this."""
    size = request.context_tokens * model.kv_bytes_per_token
    return not size or (not state.lacking and state.free_bytes(model.device) >= size)


def forget_kv(state: State, request: Request) -> None:
    """It has a row again, or its KV is elsewhere or nowhere."""
    state.release(kv_owner(request))


def hold_snapshot(state: State, request: Request, model: ModelFacts) -> bool:
    """Room in memory for the snapshot it is about to leave, while nobody waits for such; False:
    then it goes to the disk. So it does while an older one is on its way there."""
    size = HEADER_BYTES + request.context_tokens * model.kv_bytes_per_token
    limit = state.limits.max_snapshot_memory_bytes
    if request.is_spilling or state.lacking:
        return False
    if state.snapshot_memory_bytes + size > limit or state.free_bytes(HOST) < size:
        return False
    request.leaving_owner = f"snapshot:{request.request_id}:{request.num_suspensions}"
    state.reserve(request.leaving_owner, {HOST: size})
    state.snapshot_memory_bytes += size
    return True


def keep_snapshot(state: State, request: Request, size_bytes: int | None) -> None:
    """The one it was leaving is written (None: there is none), and takes the place of any older."""
    free_snapshot(state, request)
    request.snapshot_bytes = size_bytes
    request.memory_owner, request.leaving_owner = request.leaving_owner, None
    if request.memory_owner is None:
        return
    held = state.ledger.holds(request.memory_owner)
    state.resize(request.memory_owner, HOST, size_bytes or 0)
    state.snapshot_memory_bytes += (size_bytes or 0) - held


def lose_leaving(state: State, request: Request) -> None:
    """The snapshot it was leaving was not written."""
    if request.leaving_owner is not None:
        state.snapshot_memory_bytes -= state.release(request.leaving_owner)
        request.leaving_owner = None


def free_snapshot(state: State, request: Request) -> None:
    """The bytes of memory of the file it has; the file itself is not looked at."""
    if request.memory_owner is not None:
        state.snapshot_memory_bytes -= state.release(request.memory_owner)
        request.memory_owner = None


def drop_snapshot(state: State, request: Request) -> None:
    """The file is of no use any more."""
    if request.snapshot_bytes is not None:
        free_snapshot(state, request)
        request.snapshot_bytes, request.num_resumes = None, 0
        state.out.append(do.DropSnapshot(request.request_id))


def free_all(state: State, request: Request) -> None:
    """It has ended."""
    forget_kv(state, request)
    lose_leaving(state, request)
    free_snapshot(state, request)
