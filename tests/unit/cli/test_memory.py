"""`ps --memory`: the ledger for people, on any screen, and for programs."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import typer

from llmos.abi.memory import MemoryInfo
from llmos.abi.syscall import ReplicaInfo
from llmos.api.bodies.admin import MAX_KEEP_ALIVE_S
from llmos.cli.duration import FOREVER_S, parse_duration
from llmos.cli.memory import blocks, kept
from llmos.sdk.draw.columns import width_of
from llmos.sdk.wire import from_wire
from tests.unit.cli.conftest import Run
from tests.unit.sdk.fake import MEMORY, Server
from tests.unit.sdk.test_calls import REPLICA

LONG: dict[str, Any] = {
    **REPLICA,
    "model": "organisation/模型-with-a-very-long-name:12",
    "state": "unparking",
    "num_running": 3,
    "num_paused": 2,
    "keep_alive_s": 300.0,
    "reason": "two requests wait for it: it is read back from its clean pages",
}


def memory(**fields: Any) -> MemoryInfo:
    return from_wire({**MEMORY, **fields}, MemoryInfo)


def replica(**fields: Any) -> ReplicaInfo:
    return from_wire({**LONG, **fields}, ReplicaInfo)


def shown(width: int | None, **options: Any) -> list[list[str]]:
    return [b.splitlines() for b in blocks(memory(), [replica()], width, **options)]


@pytest.fixture
def served(server: Server) -> Server:
    server.routes["GET /os/v1/memory"] = lambda _: httpx.Response(200, json=MEMORY)
    server.routes["GET /os/v1/replicas"] = lambda _: httpx.Response(
        200, json={"replicas": [REPLICA]}
    )
    return server


def test_a_block_per_device_then_who_waits_then_snapshots_then_replicas() -> None:
    cpu, gpu, lacking, snapshots, replicas = shown(None)
    assert cpu[0] == "cpu: 8.0 GB in all, budget 6.0 GB, reserved 3.1 GB, available 4.2 GB"
    assert cpu[1].split() == ["OWNER", "KIND", "WHAT", "STATE", "RESERVED", "MEASURED"]
    assert cpu[2].split()[:2] == ["rep_1", "replica"]
    assert cpu[3].split() == ["…00000001", "snapshot", "pilot:1", "suspended", "100", "MB", "-"]
    assert gpu == [
        "cuda:0: 150 GB in all, budget 140 GB, reserved 0 B, available not measured",
        "nothing is held",
    ]
    assert lacking == [
        "other:1 waits for room: 4.0 GB, for 12 s: pilot:1 serves until its minimum residency"
    ]
    assert snapshots == ["snapshots on the disk: 2, 250 MB; 40.0 GB free"]
    assert "3/4" in replicas[1]
    assert replicas[1].endswith(LONG["reason"])


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_tables_fit_their_screen(width: int) -> None:
    *_, replicas = shown(width)
    cpu = shown(width)[0]
    if width >= 80:
        assert max(map(width_of, replicas)) <= width
    assert max(map(width_of, cpu[1:])) <= width
    assert cpu[2].endswith("2.9 GB")  # numbers are never cut
    assert "unparking" in replicas[1]


def test_wide_has_every_column_and_cuts_nothing() -> None:
    *_, replicas = shown(40, wide=True)
    words = ("PAUSED", "KV CACHED", "RESIDENT", "WEIGHTS", "DEVICE", "DTYPE", "RESTARTS", "AGE")
    for word in words:
        assert word in replicas[0]
    assert LONG["model"] in replicas[1]
    assert replicas[1].endswith(LONG["reason"])


def test_what_a_driver_is_about_is_said() -> None:
    made = list(blocks(memory(), [replica(detail="compiling 2 of 4")], 80))
    assert made[-1] == f"{LONG['model']}: compiling 2 of 4"
    assert len(list(blocks(memory(), [replica()], 80))) == len(made) - 1


def test_nothing_resident_and_nobody_waiting_leave_their_parts_out() -> None:
    made = list(blocks(memory(lacking=[], devices=[]), [], 80))
    assert made == ["snapshots on the disk: 2, 250 MB; 40.0 GB free"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"pinned": True}, "pinned"),
        ({"keep_alive_s": None}, "-"),
        ({"keep_alive_s": 0}, "0.0 s"),
        ({"keep_alive_s": 7200}, "2 h"),
        ({"keep_alive_s": FOREVER_S}, "forever"),
    ],
)
def test_how_long_a_replica_is_kept(fields: dict[str, Any], text: str) -> None:
    assert kept(replica(**fields)) == text


def test_what_others_named_cannot_act_on_the_terminal(llmos: Run, served: Server) -> None:
    lacking = [{**MEMORY["lacking"][0], "model": "x\x1b[2J\ny", "reason": "\x1b]0;t\x07"}]
    answer = {**MEMORY, "lacking": lacking}
    served.routes["GET /os/v1/memory"] = httpx.Response(200, json=answer)
    out = llmos("ps", "--memory").out
    assert "\x1b" not in out
    assert "x\\x1b[2J\\ny waits for room" in out


def test_ps_memory(llmos: Run, served: Server) -> None:
    out = llmos("ps", "--memory").out
    assert "rep_1" in out
    assert out.count("\n\n") == 4
    assert "RESIDENT" in llmos("ps", "-m", "-w").out
    made = llmos("ps", "--memory", "--json").json
    assert set(made) == {"memory", "replicas"}
    assert made["memory"] == MEMORY
    assert made["replicas"][0]["memory"]["rss_bytes"] == 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("90", 90.0),
        ("1.5h", 5400.0),
        ("10m", 600.0),
        ("10 min", 600.0),
        ("2H", 7200.0),
        ("1d", 86_400.0),
        ("0", 0.0),
        (" forever ", FOREVER_S),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "m", "1h30m", "10 ms", "1e3", "nan", "inf", "never", "101y", "36501d", "٣"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_duration(text)


def test_for_ever_is_the_longest_the_server_takes() -> None:
    assert FOREVER_S == MAX_KEEP_ALIVE_S
