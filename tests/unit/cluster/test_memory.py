"""What is left of a node's memory, on machines made of files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmos.abi.node import NodeMemory
from llmos.cluster import memory, proc
from llmos.cluster.local import LocalNode

KIB, GIB = 1 << 10, 1 << 30
MEMINFO = "MemTotal:       16777216 kB\nMemFree:  1 kB\nMemAvailable:    8388608 kB\n"
HUGE = 9223372036854771712


class Machine:
    """/proc and /sys/fs/cgroup as files."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroup"
        self.write("proc/meminfo", MEMINFO)
        self._root = root

    def write(self, name: str, text: object) -> None:
        path = self.proc.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def v2(self, path: str, limit: object, usage: object, inactive: int, kills: int = 0) -> None:
        folder = f"cgroup{path.rstrip('/')}"
        self.write(f"{folder}/memory.max", limit)
        self.write(f"{folder}/memory.current", usage)
        self.write(f"{folder}/memory.stat", f"anon 1\ninactive_file {inactive}\nactive_file 9")
        self.write(f"{folder}/memory.events", f"low 0\noom 5\noom_kill {kills}")

    def v1(self, path: str, limit: object, usage: object, inactive: int, kills: int = 0) -> None:
        folder = f"cgroup/memory{path.rstrip('/')}"
        self.write(f"{folder}/memory.limit_in_bytes", limit)
        self.write(f"{folder}/memory.usage_in_bytes", usage)
        self.write(f"{folder}/memory.stat", f"inactive_file 3\ntotal_inactive_file {inactive}")
        self.write(f"{folder}/memory.oom_control", f"oom_kill_disable 0\noom_kill {kills}")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(proc, "PROC", made.proc)
    monkeypatch.setattr(memory, "CGROUPS", made.cgroups)
    return made


def test_a_machine_without_groups(machine: Machine) -> None:
    machine.write("proc/vmstat", "nr_free_pages 3\noom_kill 7")
    assert memory.measure() == NodeMemory(16 * GIB, 8 * GIB, 7)
    assert LocalNode({}).memory_bytes() == (16 * GIB, 8 * GIB)


def test_within_a_v2_container_what_is_used_is_not_free(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/")
    machine.v2("/", 4 * GIB, 3 * GIB, 1 * GIB, kills=2)
    assert memory.measure() == NodeMemory(4 * GIB, 2 * GIB, 2)


def test_within_a_v1_container(machine: Machine) -> None:
    """Its path is the host's, and its root is what it sees of it."""
    machine.write("proc/self/cgroup", "9:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/")
    machine.v1("/", 4 * GIB, 3 * GIB, 2 * GIB, kills=1)
    assert memory.measure() == NodeMemory(4 * GIB, 3 * GIB, 1)


def test_the_tightest_of_the_groups_above_counts(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/user.slice/app.scope")
    machine.v2("/user.slice/app.scope", "max", 1 * GIB, 0, kills=3)
    machine.v2("/user.slice", 6 * GIB, 5 * GIB, 0, kills=9)
    machine.write("cgroup/memory.stat", "inactive_file 1")
    assert memory.measure() == NodeMemory(6 * GIB, 1 * GIB, 3)


@pytest.mark.parametrize("limit", ["max", HUGE])
def test_no_limit_is_the_machine_s_own(machine: Machine, limit: object) -> None:
    machine.write("proc/self/cgroup", "4:memory:/a\n0::/")
    machine.v1("/a", limit, 15 * GIB, 0)
    assert memory.measure() == NodeMemory(16 * GIB, 8 * GIB, 0)


def test_more_used_than_allowed_is_nothing_left(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/")
    machine.v2("/", GIB, GIB + 1, 0)
    assert memory.measure().available_bytes == 0


def test_without_answers_there_are_none(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.proc / "meminfo").unlink()
    assert memory.measure() == NodeMemory(memory._physical_bytes(), None, None)
    assert memory._physical_bytes() > 0

    def refuse(_: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr("os.sysconf", refuse)
    assert memory.measure() == NodeMemory(0, None, None)
    assert LocalNode({}).memory_bytes() == (0, 0)


def test_a_limit_without_usage_says_nothing_of_what_is_left(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/")
    machine.write("cgroup/memory.max", GIB)
    assert memory.measure() == NodeMemory(GIB, 8 * GIB, None)


def test_a_path_that_leads_out_is_not_followed(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/../../proc")
    machine.write("proc/memory.max", 5)
    assert memory.measure().total_bytes == 16 * GIB


FILES = [
    "proc/meminfo",
    "proc/self/cgroup",
    "proc/vmstat",
    "cgroup/memory.max",
    "cgroup/memory.current",
    "cgroup/memory.stat",
    "cgroup/memory.events",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.dictionaries(st.sampled_from(FILES), st.text(st.characters(max_codepoint=127))))
def test_whatever_the_files_say_it_never_raises(machine: Machine, texts: dict[str, str]) -> None:
    machine.write("proc/meminfo", MEMINFO)
    machine.write("proc/self/cgroup", "0::/")
    machine.v2("/", 4 * GIB, 3 * GIB, 0)
    for name, text in texts.items():
        machine.write(name, text)
    found = memory.measure()
    assert found.total_bytes >= 0
    assert found.available_bytes is None or found.available_bytes >= 0


def test_of_this_machine() -> None:
    found = LocalNode({}).measure()
    assert found.total_bytes > 100 << 20
    if found.available_bytes is not None:
        assert 0 < found.available_bytes <= found.total_bytes
