"""/os/v1: replicas, workers, processes, status."""

from __future__ import annotations

from llmos.abi.syscall import (
    Done,
    KillProcess,
    ListProcesses,
    ListReplicas,
    ListWorkers,
    ProcessList,
    ReplicaList,
    Status,
    StatusInfo,
    WorkerList,
)
from llmos.api.call import Call
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import answer, ask, ref_of


async def list_replicas(call: Call) -> None:
    """Resident, starting, stopping and failed replicas."""
    await answer(call, ListReplicas(), ReplicaList)


async def list_workers(call: Call) -> None:
    """Worker processes."""
    await answer(call, ListWorkers(), WorkerList)


async def list_processes(call: Call) -> None:
    """Requests and jobs, ended ones for a while."""
    await answer(call, ListProcesses(), ProcessList)


async def kill_process(call: Call) -> None:
    """End a process; its stream ends with an error."""
    done = await ask(call, KillProcess(ref_of(call, "process_id")), Done)
    await call.send_json({"done": done.what})


async def status(call: Call) -> None:
    """Readiness, queues and the memory budget."""
    await answer(call, Status(), StatusInfo)


ROUTES = [
    RouteSpec("GET", "/os/v1/replicas", list_replicas, "Resident model versions."),
    RouteSpec("GET", "/os/v1/workers", list_workers, "Worker processes."),
    RouteSpec("GET", "/os/v1/processes", list_processes, "Requests and jobs: `ps`."),
    RouteSpec("DELETE", "/os/v1/processes/{process_id}", kill_process, "End a process: `kill`."),
    RouteSpec("GET", "/os/v1/status", status, "The system as a whole."),
]
