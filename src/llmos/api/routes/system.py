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
from llmos.api.routes.unary import ask


async def list_replicas(call: Call) -> ReplicaList:
    """Resident, starting, parked, stopping and failed replicas."""
    return await ask(call, ListReplicas(), ReplicaList)


async def list_workers(call: Call) -> WorkerList:
    """Worker processes."""
    return await ask(call, ListWorkers(), WorkerList)


async def show_memory(call: Call) -> MemoryInfo:
    """Every device's ledger, who waits for room, and the snapshots on the disk."""
    return await ask(call, ShowMemory(), MemoryInfo)


async def status(call: Call) -> StatusInfo:
    """Readiness, queues and the memory budget."""
    return await ask(call, Status(), StatusInfo)


async def list_settings(call: Call) -> SettingList:
    """Values in force and where each came from. They do not pass the gate, which knows them not."""
    call.edge.authorizer.authorize(call.principal, Action.READ_SYSTEM, Resource("system"))
    return SettingList(list(call.edge.settings))


ROUTES = [
    RouteSpec("GET", "/os/v1/settings", list_settings, "Settings: `config show --origin`."),
    RouteSpec("GET", "/os/v1/replicas", list_replicas, "Resident model versions."),
    RouteSpec("GET", "/os/v1/workers", list_workers, "Worker processes."),
    RouteSpec("GET", "/os/v1/memory", show_memory, "Who holds how much: `ps --memory`."),
    RouteSpec("GET", "/os/v1/status", status, "The system as a whole."),
]
