"""/os/v1: replicas, workers, memory, status."""

from __future__ import annotations

from llmos.abi.memory import MemoryInfo
from llmos.abi.syscall import (
    ListReplicas,
    ListWorkers,
    ReplicaList,
    ShowMemory,
    Status,
    StatusInfo,
    WorkerList,
)
from llmos.api.call import Call
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import answer


async def list_replicas(call: Call) -> None:
    """Resident, starting, parked, stopping and failed replicas."""
    await answer(call, ListReplicas(), ReplicaList)


async def list_workers(call: Call) -> None:
    """Worker processes."""
    await answer(call, ListWorkers(), WorkerList)


async def show_memory(call: Call) -> None:
    """Every device's ledger, who waits for room, and the snapshots on the disk."""
    await answer(call, ShowMemory(), MemoryInfo)


async def status(call: Call) -> None:
    """Readiness, queues and the memory budget."""
    await answer(call, Status(), StatusInfo)


ROUTES = [
    RouteSpec("GET", "/os/v1/replicas", list_replicas, "Resident model versions."),
    RouteSpec("GET", "/os/v1/workers", list_workers, "Worker processes."),
    RouteSpec("GET", "/os/v1/memory", show_memory, "Who holds how much: `ps --memory`."),
    RouteSpec("GET", "/os/v1/status", status, "The system as a whole."),
]
