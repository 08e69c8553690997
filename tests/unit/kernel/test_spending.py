"""What a second costs is learnt from counters, or said to be an estimate."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.abi.inference import Prepared
from llmos.abi.spent import NodeEnergy
from llmos.kernel.spending import Spending
from llmos.telemetry.metrics import Metrics
from tests.unit.kernel.test_telemetry import a_process


class Node:
    def __init__(self) -> None:
        self.now = NodeEnergy(None, 0.0)

    def energy(self) -> NodeEnergy:
        return self.now


def spending(watts: float = 10.0) -> tuple[Spending, Node, Metrics]:
    node, metrics = Node(), Metrics()
    agent: Any = node
    return Spending(agent, metrics, watts), node, metrics


def ended(spending: Spending, cpu_s: float, engine_s: float = 0.0, **fields: Any) -> Any:
    process = a_process(**fields)
    process.cpu_s, process.engine_s = cpu_s, engine_s
    return spending.ended(process, fields.get("device", ""))


def test_without_counters_it_is_an_estimate_and_says_by_what() -> None:
    made, node, _ = spending(watts=10.0)
    made.look()
    node.now = NodeEnergy(None, 100.0)
    made.look()
    spent = ended(made, 2.0)
    assert (spent.joules, spent.basis) == (20.0, "estimate: 10 W per busy core")


def test_with_counters_a_busy_second_costs_what_all_used() -> None:
    made, node, _ = spending()
    node.now = NodeEnergy(1000.0, 50.0)
    made.look()
    node.now = NodeEnergy(1060.0, 54.0)  # 60 J over 4 busy seconds
    made.look()
    assert ended(made, 2.0).joules == pytest.approx(30.0)
    node.now = NodeEnergy(1061.0, 54.001)  # an idle moment teaches nothing
    made.look()
    spent = ended(made, 2.0)
    assert (spent.joules, spent.basis) == (pytest.approx(30.0), "rapl")


def test_a_device_is_shared_by_the_time_of_its_steps() -> None:
    made, node, _ = spending(watts=0.0)
    node.now = NodeEnergy(None, 0.0, {"cuda:0": 100.0})
    made.look()
    made.stepped("cuda:0", 2.0)
    node.now = NodeEnergy(None, 1.0, {"cuda:0": 500.0})
    made.look()
    spent = ended(made, 0.0, 0.5, device="cuda:0")
    assert spent.joules == pytest.approx(100.0)
    assert spent.basis.endswith("nvml")
    assert ended(made, 0.0, 0.5).joules == 0.0


def test_memory_is_the_kv_of_all_its_tokens() -> None:
    made, _, _ = spending()
    process = a_process(prepared=Prepared("req_1", b"", 7), started_ns=1)
    process.generated.extend([1, 2, 3])
    kv = process.version.kv_bytes_per_token
    assert made.ended(process, "").memory_bytes == 10 * kv
    process.started_ns = None  # it never had a row
    assert made.ended(process, "").memory_bytes == 0


def test_a_job_is_told_its_calls_use_once() -> None:
    made, _, metrics = spending(watts=1.0)
    ended(made, 2.0, 0.25, parent_id="job_1")
    ended(made, 3.0, 0.25, parent_id="job_1")
    ended(made, 9.0, parent_id="job_2")
    spent = made.job_ended("job_1", "task", cpu_s=1.0, memory_bytes=77)
    assert (spent.cpu_s, spent.engine_s, spent.joules) == (6.0, 0.5, 6.0)
    assert spent.memory_bytes == 77
    assert made.job_ended("job_1", "task", 0.0, 0).cpu_s == 0.0
    text = metrics.render()[0].decode()
    assert 'llmos:job_cpu_seconds_total{program="task"} 1.0' in text
    assert 'llmos:job_energy_joules_total{basis="estimate",program="task"} 1.0' in text


def test_jobs_that_nobody_asks_about_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmos.kernel.spending.MAX_JOBS", 2)
    made, _, _ = spending()
    for number in range(3):
        ended(made, 1.0, parent_id=f"job_{number}")
    assert made.job_ended("job_0", "task", 0.0, 0).cpu_s == 0.0
    assert made.job_ended("job_2", "task", 0.0, 0).cpu_s == 1.0
