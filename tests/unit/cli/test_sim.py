"""`llmos sim`: works without a server; wrong input is told in one line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from llmos.kernel.core.policies import fair
from llmos.plugins import entry_points
from tests.unit.cli.conftest import Run

TRACE = "at_s,prompt_tokens,output_tokens,tenant,class\n" + "".join(
    f"{i * 0.05:.2f},20,10,t{i % 3},{('interactive', 'batch')[i % 2]}\n" for i in range(60)
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    return path


def test_a_trace_gives_a_table_and_a_hash(llmos: Run, trace: Path) -> None:
    done = llmos("sim", "--trace", str(trace), "--slots", "2", "--replicas", "2", "--check", "1")
    assert done.code == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()[1:3]] == ["interactive", "batch"]
    assert "60 calls" in done.out
    assert "60 finished" in done.out
    again = llmos("sim", "--trace", str(trace), "--slots", "2", "--replicas", "2", "--check", "1")
    assert again.out == done.out


def test_json_says_the_same(llmos: Run, trace: Path) -> None:
    args = ("sim", "--trace", str(trace), "--limit", "10", "--speed", "4", "--json")
    report = llmos(*args).json
    assert report["num_calls"] == 10
    assert report["ends"] == {"finished": 10}
    assert {kind["service_class"] for kind in report["classes"]} == {"interactive", "batch"}
    assert llmos(*args, "--seed", "9").json["hash"] == report["hash"]  # nothing was drawn
    assert llmos(*args, "--policy", "fifo").json["policy"] == "fifo"


def test_made_up_calls_faults_and_proportions(llmos: Run) -> None:
    args = ("sim", "--limit", "60", "--rate", "20", "--tenants", "3,1", "--faults", "all", "--json")
    one = llmos(*args, "--classes", "batch=1,interactive=2", "--seed", "1").json
    assert one["injected"].keys() & {"late", "duplicate"}
    assert set(one["tokens_by_tenant"]) == {"tenant-1", "tenant-2"}
    assert len(one["classes"]) == 2
    other = llmos(*args, "--classes", "batch=1,interactive=2", "--seed", "2").json
    assert one["hash"] != other["hash"]


def test_a_plugins_policy_is_found_by_name(llmos: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    load = entry_points.load
    monkeypatch.setattr(
        entry_points, "load", lambda group, name: fair.make if name == "mine" else load(group, name)
    )
    assert llmos("sim", "--limit", "5", "--policy", "mine", "--json").json["policy"] == "mine"


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--policy", "fare"), 1, "'fare'"),
        (("--trace", "none.csv"), 1, "cannot be read"),
        (("--faults", "fire=1"), 1, "fault 'fire'"),
        (("--classes", "urgent=1"), 2, "class 'urgent'"),
        (("--classes", "batch=0"), 2, "numbers above 0"),
        (("--tenants", "0"), 2, "numbers above 0"),
        (("--tenants", "1,x"), 2, "numbers above 0"),
        (("--step", "1,2"), 2, "3 numbers"),
        (("--replicas", "0"), 2, "'--replicas'"),
        (("--seed", "-1"), 2, "'--seed'"),
        (("--limit", "5", "--plot", "no/such/folder/x.svg"), 1, "cannot be written"),
        (("--limit", "5", "--plot", "x.unknown"), 1, "cannot be written"),
        (("--limit", "5", "--plot", "/"), 1, "cannot be written"),
    ],
)
def test_wrong_input(llmos: Run, args: tuple[str, ...], code: int, says: str) -> None:
    done = llmos("sim", *args)
    assert done.code == code, done.err
    assert says in done.err
    assert "Traceback" not in done.err


def test_a_bad_line_is_named(llmos: Run, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b"at_s,prompt_tokens,output_tokens\r\n0,1,1\r\n1,x,1\r\n")
    error = llmos("sim", "--trace", str(path), "--json").error
    assert error["code"] == "invalid_request"
    assert error["details"] == {"line": 3}
    path.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in llmos("sim", "--trace", str(path)).err


def test_a_plot(llmos: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.svg"
    assert llmos("sim", "--limit", "20", "--plot", str(path)).code == 0
    first = path.read_bytes()
    assert first.startswith(b"<?xml")
    llmos("sim", "--limit", "20", "--plot", str(path))
    assert path.read_bytes() == first


def test_without_matplotlib_the_install_is_named(
    llmos: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = llmos("sim", "--limit", "5", "--plot", str(tmp_path / "x.svg"))
    assert done.code == 1
    assert "pip install" in done.err
