"""System calls that look at the machine: processes, replicas, workers, status, health."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmos.abi import syscall as sc
from llmos.abi.principal import Action, Resource
from llmos.errors import LLMOSError, NotFound
from llmos.kernel.core.replica import Replica
from llmos.kernel.core.request import RequestState
from llmos.kernel.front import Call

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel


async def list_processes(kernel: Kernel, call: Call, body: sc.ListProcesses) -> sc.ProcessList:
    """Live ones first, then the ended ones still known, newest first; only what one may see."""
    infos = [process.info() for process in kernel.table.live.values()]
    infos += reversed(kernel.table.ended)
    return sc.ProcessList([info for info in infos if _may_see(kernel, call, info)])


def _may_see(kernel: Kernel, call: Call, info: sc.ProcessInfo) -> bool:
    resource = Resource("process", info.process_id, info.tenant_id)
    try:
        kernel.authorizer.authorize(call.principal, Action.READ_PROCESSES, resource)
    except LLMOSError:
        return False
    return True


async def kill_process(kernel: Kernel, call: Call, body: sc.KillProcess) -> sc.Done:
    """Ends with `Aborted` on its stream. Raises NotFound, PermissionDenied."""
    process = kernel.table.live.get(body.process_id)
    if process is None:
        raise NotFound(f"no live process {body.process_id}", param="process_id")
    owner = Resource("process", process.request_id, process.principal.tenant_id)
    kernel.authorizer.authorize(call.principal, Action.CONTROL_PROCESSES, owner)
    kernel.cancel(process.request_id, f"killed by {call.principal.name}")
    return sc.Done(f"{process.request_id} is being ended")


async def list_replicas(kernel: Kernel, call: Call, body: sc.ListReplicas) -> sc.ReplicaList:
    """Every replica with its state and the reason for it."""
    return sc.ReplicaList([_replica(kernel, r) for r in kernel.state.replicas.values()])


def _replica(kernel: Kernel, replica: Replica) -> sc.ReplicaInfo:
    load = kernel.effects.loads.get(replica.replica_id)
    worker, memory = kernel.workers.report_of(replica.replica_id)
    model_id = replica.model.model_id
    fault = kernel.state.faults.get(model_id)
    since_s = (time.monotonic_ns() - replica.since_ns) / 1e9
    return sc.ReplicaInfo(
        replica_id=replica.replica_id,
        model=replica.model.ref,
        driver=worker.driver.name if worker and worker.driver else "",
        state=replica.state,
        worker_id=worker.worker_id if worker else None,
        num_slots=replica.num_slots,
        num_running=len(replica.running),
        num_waiting=len(kernel.state.queues[model_id]),
        reserved_bytes=replica.reserved_bytes,
        memory=memory,
        dtype=load.dtype if load else "",
        device=load.device if load else "",
        deterministic=load.deterministic if load else None,
        since_ns=time.time_ns() - int(since_s * 1e9),
        reason=replica.reason,
        num_restarts=fault.num_failures if fault else 0,
    )


async def list_workers(kernel: Kernel, call: Call, body: sc.ListWorkers) -> sc.WorkerList:
    """Every worker process."""
    return sc.WorkerList(kernel.workers.infos())


async def status(kernel: Kernel, call: Call, body: sc.Status) -> sc.StatusInfo:
    """The machine in one look."""
    state, ledger, problems = kernel.state, kernel.state.ledger, kernel.problems()
    total_bytes, _ = kernel.node.memory_bytes()
    return sc.StatusInfo(
        ready=not problems,
        problems=problems,
        version=kernel.version,
        epoch=kernel.epoch,
        started_ns=kernel.started_ns,
        num_queued=state.num_waiting,
        num_running=sum(r.state is RequestState.RUNNING for r in state.requests.values()),
        memory_total_bytes=total_bytes,
        memory_budget_bytes=ledger.budget_bytes,
        memory_reserved_bytes=ledger.reserved_bytes,
    )


async def health(kernel: Kernel, call: Call, body: sc.Health) -> sc.HealthReport:
    """For probes: no key, no details about anyone."""
    problems = kernel.problems()
    return sc.HealthReport(not problems, problems)
