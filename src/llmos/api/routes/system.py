"""/os/v1: replicas, workers, memory, status."""

from __future__ import annotations

from llmos.abi.memory import MemoryInfo
from llmos.abi.principal import Action, Resource
from llmos.abi.settings import SettingList
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
from llmos.api.wire import to_wire


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


async def list_settings(call: Call) -> None:
    """Values in force and where each came from. They do not pass the gate, which knows them not."""
    call.edge.authorizer.authorize(call.principal, Action.READ_SYSTEM, Resource("system"))
    await call.send_json(to_wire(SettingList(list(call.edge.settings))))


ROUTES = [
    RouteSpec("GET", "/os/v1/settings", list_settings, "Settings: `config show --origin`."),
    RouteSpec("GET", "/os/v1/replicas", list_replicas, "Resident model versions."),
    RouteSpec("GET", "/os/v1/workers", list_workers, "Worker processes."),
    RouteSpec("GET", "/os/v1/memory", show_memory, "Who holds how much: `ps --memory`."),
    RouteSpec("GET", "/os/v1/status", status, "The system as a whole."),
]
