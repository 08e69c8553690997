"""/os/v1: replicas, workers, status."""

from __future__ import annotations

from llmos.abi.syscall import (
    ListReplicas,
    ListWorkers,
    ReplicaList,
    Status,
    StatusInfo,
    WorkerList,
)
from llmos.api.call import Call
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import answer


async def list_replicas(call: Call) -> None:
    """Resident, starting, stopping and failed replicas."""
    await answer(call, ListReplicas(), ReplicaList)


async def list_workers(call: Call) -> None:
    """Worker processes."""
    await answer(call, ListWorkers(), WorkerList)


async def status(call: Call) -> None:
    """Readiness, queues and the memory budget."""
    await answer(call, Status(), StatusInfo)


ROUTES = [
    RouteSpec("GET", "/os/v1/replicas", list_replicas, "Resident model versions."),
    RouteSpec("GET", "/os/v1/workers", list_workers, "Worker processes."),
    RouteSpec("GET", "/os/v1/status", status, "The system as a whole."),
]
