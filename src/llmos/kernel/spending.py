"""What requests and jobs have used: processor seconds as workers measured them, and energy as the
machine's counters tell, or else by an estimate that says so."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from llmos.abi.node import NodeAgent
from llmos.abi.spent import NodeEnergy, Spent
from llmos.kernel.process import Process
from llmos.telemetry.metrics import Metrics

MAX_JOBS = 10_000
"""Whose calls are added up; of more, the oldest are forgotten."""
LEAST_BUSY_S = 0.05
"""Between two looks; below it a rate would be noise, and the one before stays."""


@dataclass(slots=True)
class Sum:
    """Of a job's calls so far."""

    cpu_s: float = 0.0
    engine_s: float = 0.0
    memory_bytes: int = 0
    joules: float = 0.0


class Spending:
    """`look` now and then: between two looks it is learnt what a second costs.

    Where the processors' counters can be read, a busy second costs what all of them used, idle
    power included, over all seconds that cores were busy.
    """

    def __init__(self, node: NodeAgent, metrics: Metrics, watts_per_core: float) -> None:
        self._node = node
        self._metrics = metrics
        self._joules_per_cpu_s = watts_per_core
        self.basis = f"estimate: {watts_per_core:g} W per busy core"
        self._last: NodeEnergy | None = None
        self._engine_s: dict[str, float] = defaultdict(float)
        self._joules_per_engine_s: dict[str, float] = {}
        self._jobs: dict[str, Sum] = {}

    def look(self) -> None:
        """Reads the counters."""
        now, before = self._node.energy(), self._last
        self._last = now
        engine_s, self._engine_s = self._engine_s, defaultdict(float)
        if before is None:
            return
        busy_s = now.busy_s - before.busy_s
        if now.cpu_joules is not None and before.cpu_joules is not None and busy_s > LEAST_BUSY_S:
            self._joules_per_cpu_s = max(0.0, now.cpu_joules - before.cpu_joules) / busy_s
            self.basis = "rapl"
        for device, joules in now.device_joules.items():
            used_s = engine_s.get(device, 0.0)
            if device in before.device_joules and used_s > LEAST_BUSY_S:
                used = max(0.0, joules - before.device_joules[device])
                self._joules_per_engine_s[device] = used / used_s

    def stepped(self, device: str, step_s: float) -> None:
        """An engine on `device` took a step."""
        self._engine_s[device] += step_s

    def ended(self, process: Process, device: str) -> Spent:
        """Of a request, to which `device` its last replica belonged; empty: to none."""
        joules, basis = self._energy(process.cpu_s, process.engine_s, device)
        num_tokens = len(process.generated) + (
            process.prepared.num_tokens if process.prepared else 0
        )
        has_kv = process.started_ns is not None
        memory_bytes = num_tokens * process.version.kv_bytes_per_token if has_kv else 0
        spent = Spent(process.cpu_s, process.engine_s, memory_bytes, joules, basis)
        name = process.version.ref
        self._metrics.request_cpu.labels(name).inc(spent.cpu_s)
        self._metrics.request_joules.labels(name, basis.partition(":")[0]).inc(joules)
        if process.parent_id is not None:
            self._add(process.parent_id, spent)
        return spent

    def _energy(self, cpu_s: float, engine_s: float, device: str) -> tuple[float, str]:
        joules, basis = cpu_s * self._joules_per_cpu_s, self.basis
        if device in self._joules_per_engine_s:
            joules += engine_s * self._joules_per_engine_s[device]
            basis = f"{basis}, nvml"
        return joules, basis

    def _add(self, job_id: str, spent: Spent) -> None:
        if job_id not in self._jobs and len(self._jobs) >= MAX_JOBS:
            del self._jobs[next(iter(self._jobs))]
        so_far = self._jobs.setdefault(job_id, Sum())
        so_far.cpu_s += spent.cpu_s
        so_far.engine_s += spent.engine_s
        so_far.memory_bytes = max(so_far.memory_bytes, spent.memory_bytes)
        so_far.joules += spent.joules or 0.0

    def job_ended(self, job_id: str, program: str, cpu_s: float, memory_bytes: int) -> Spent:
        """Of an attempt: its own worker's share, and its calls'. What is told is forgotten."""
        calls = self._jobs.pop(job_id, Sum())
        joules, basis = self._energy(cpu_s, 0.0, "")
        self._metrics.job_cpu.labels(program).inc(cpu_s)
        self._metrics.job_joules.labels(program, basis.partition(":")[0]).inc(joules)
        return Spent(
            cpu_s + calls.cpu_s,
            calls.engine_s,
            max(memory_bytes, calls.memory_bytes),
            joules + calls.joules,
            basis,
        )
