"""System calls that look at the machine: replicas, workers, status, health."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from llmos.abi import syscall as sc
from llmos.kernel.core.replica import Replica
from llmos.kernel.core.request import QUEUED, RequestState
from llmos.kernel.front import Call

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel


async def list_replicas(kernel: Kernel, call: Call, body: sc.ListReplicas) -> sc.ReplicaList:
    """Every replica with its state and the reason for it."""
    return sc.ReplicaList([_replica(kernel, r) for r in kernel.state.replicas.values()])


def _replica(kernel: Kernel, replica: Replica) -> sc.ReplicaInfo:
    load = kernel.effects.loads.get(replica.replica_id)
    worker, memory = kernel.workers.report_of(replica.replica_id)
    model_id = replica.model.model_id
    fault = kernel.state.faults.get(model_id)
    choice = kernel.placement.choice_of(replica.model)
    draft = kernel.placement.draft_of(replica.model)
    health = worker.health if worker else None
    since_s = (time.monotonic_ns() - replica.since_ns) / 1e9
    return sc.ReplicaInfo(
        replica_id=replica.replica_id,
        model=replica.model.ref,
        driver=worker.driver.name if worker and worker.driver else "",
        state=replica.state,
        worker_id=worker.worker_id if worker else None,
        num_slots=replica.num_slots,
        num_running=len(replica.running),
        num_waiting=len(kernel.state.queue(model_id)),
        reserved_bytes=replica.reserved_bytes,
        memory=memory,
        dtype=load.dtype if load else choice.dtype,
        device=load.device if load else "",
        deterministic=load.deterministic if load else None,
        since_ns=time.time_ns() - int(since_s * 1e9),
        reason=replica.reason,
        num_restarts=fault.num_failures if fault else 0,
        num_paused=len(replica.parked),
        keep_alive_s=replica.keep_alive_ns / 1e9,
        pinned=model_id in kernel.state.pinned,
        dtype_reason=choice.reason,
        warnings=[*choice.warnings, *(load.warnings if load else [])],
        engine=load.engine if load else "",
        draft=draft.ref if draft else "",
        num_guessed=health.num_guessed if health else 0,
        num_accepted=health.num_accepted if health else 0,
    )


async def list_workers(kernel: Kernel, call: Call, body: sc.ListWorkers) -> sc.WorkerList:
    """Every worker process."""
    return sc.WorkerList(kernel.workers.infos())


async def status(kernel: Kernel, call: Call, body: sc.Status) -> sc.StatusInfo:
    """The machine in one look."""
    state, ledger, problems = kernel.state, kernel.state.ledger, kernel.problems()
    total_bytes = kernel.node.measure().total_bytes
    waiting = Counter(
        r.waiting.service_class.name.lower() for r in state.requests.values() if r.state in QUEUED
    )
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
        policy=kernel.config.policy,
        waiting=dict(waiting),
        num_tokens=kernel.effects.num_tokens,
    )


async def health(kernel: Kernel, call: Call, body: sc.Health) -> sc.HealthReport:
    """For probes: no key, no details about anyone. Proves a step of the core and a store write."""
    vital = await kernel.vitals.check()
    problems = kernel.problems()
    return sc.HealthReport(not problems, problems, live=not vital)
