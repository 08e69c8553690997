"""`top`: its frames at every size, its keys, its JSON."""

from __future__ import annotations

import io
import os
import pty
import re
from typing import Any

import httpx
import pytest

from llmos.abi.principal import ServiceClass
from llmos.abi.syscall import ProcessInfo, ReplicaInfo, StatusInfo
from llmos.cli.frame import Frame, Meter, bar, lines
from llmos.cli.keyboard import keyboard
from llmos.cli.top import HELP, Screen, _paint
from llmos.sdk.draw.columns import width_of
from llmos.sdk.wire import from_wire
from tests.unit.cli.conftest import Run
from tests.unit.sdk.fake import PROCESS, STATUS, Server, refusal
from tests.unit.sdk.test_calls import REPLICA

SHAPES = [(80, 24), (40, 10), (20, 5), (200, 60), (110, 24)]


def process(number: int, **fields: Any) -> ProcessInfo:
    name = f"req_{number:032x}"
    return from_wire({**PROCESS, "process_id": name, **fields}, ProcessInfo)


def frame(num_processes: int, **status: Any) -> Frame:
    return Frame(
        1,
        12.34,
        from_wire({**STATUS, **status}, StatusInfo),
        [from_wire({**REPLICA, "num_running": 2}, ReplicaInfo)] * 3,
        [process(i, reason="它在等 🎉 \x1b[2J" * 9) for i in range(num_processes)],
    )


@pytest.fixture
def served(server: Server) -> Server:
    server.routes["GET /os/v1/status"] = lambda _: httpx.Response(200, json=STATUS)
    server.routes["GET /os/v1/replicas"] = lambda _: httpx.Response(
        200, json={"replicas": [REPLICA]}
    )
    server.routes["GET /os/v1/processes"] = lambda _: httpx.Response(
        200, json={"processes": [PROCESS]}
    )
    return server


@pytest.mark.parametrize(("width", "height"), SHAPES)
@pytest.mark.parametrize("num_processes", [0, 1, 500])
def test_a_frame_fits_its_screen(width: int, height: int, num_processes: int) -> None:
    made = lines(frame(num_processes), "http://127.0.0.1:8400", width, height)
    assert len(made) <= height
    assert {width_of(line.text) for line in made} == {width}
    assert not any("\x1b" in line.text for line in made)


def test_a_frame_of_80_by_24_says_it_all() -> None:
    text = "\n".join(line.text for line in lines(frame(30), "http://x", 80, 23))
    for word in ("12.3 tok/s", "running 2", "batch 1", "interactive 0", "policy fair", "NOT READY"):
        assert word in text
    assert "[########--------] 2/4" in text
    assert "1.0 GB reserved of 6.0 GB" in text
    assert len(re.findall(r"^0000000\w ", text, re.MULTILINE)) >= 8


def test_the_chosen_process_is_in_sight_wherever_it_is() -> None:
    for chosen in (0, 7, 29):
        made = lines(frame(30), "x", 80, 23, chosen)
        (line,) = [line for line in made if line.look == "chosen"]
        assert line.text.startswith(f"{chosen:08x}")


def test_processes_stand_in_the_order_of_their_claim(served: Server) -> None:
    shuffled = [
        {**PROCESS, "process_id": "late", "state": "waiting", "eta_s": 9.0},
        {**PROCESS, "process_id": "soon", "state": "waiting", "eta_s": 1.0},
        {**PROCESS, "process_id": "low", "state": "waiting", "service_class": "batch"},
        {**PROCESS, "process_id": "runs", "state": "running", "service_class": "batch"},
        {**PROCESS, "process_id": "held", "state": "suspended"},
        {**PROCESS, "process_id": "leaves", "state": "suspending"},
        {**PROCESS, "process_id": "new", "state": "from another version"},
    ]
    served.routes["GET /os/v1/processes"] = httpx.Response(200, json={"processes": shuffled})
    with served.client() as client:
        seen = Meter(client).look()
    found = [p.process_id for p in seen.processes]
    assert found == ["runs", "leaves", "soon", "late", "low", "held", "new"]


def test_speed_is_the_tokens_between_two_looks_at_the_same_server(served: Server) -> None:
    counts = iter([(1, 100), (1, 150), (2, 7), (2, 7)])

    def status(_: httpx.Request) -> httpx.Response:
        epoch, num_tokens = next(counts)
        return httpx.Response(200, json={**STATUS, "epoch": epoch, "num_tokens": num_tokens})

    served.routes["GET /os/v1/status"] = status
    with served.client() as client:
        meter = Meter(client)
        speeds = [meter.look().tokens_per_s for _ in range(4)]
    assert speeds[0] is None
    assert speeds[1] is not None
    assert speeds[1] > 0
    assert speeds[2:] == [None, 0.0]  # it was started again in between


def test_bars_stay_in_their_frame() -> None:
    assert [bar(*part) for part in ((0, 4), (9, 4), (1, 0))] == [
        "[----------------]",
        "[################]",
        "[----------------]",
    ]


def test_once_prints_one_frame_and_json_one_object(llmos: Run, served: Server) -> None:
    out = llmos("top", "--once", "--interval", "0.1").out
    assert "req_1" in out
    assert "policy fair" in out
    assert llmos("top", "--interval", "0.1").out.splitlines()[0] == out.splitlines()[0]
    made = llmos("top", "--once", "--json", "--interval", "0.1").json
    assert made["tokens_per_s"] == 0.0
    assert made["processes"] == [PROCESS]
    assert made["status"] == STATUS
    assert made["replicas"][0]["replica_id"] == "rep_1"


def test_json_goes_on_until_interrupted(llmos: Run, served: Server) -> None:
    looks = iter([httpx.Response(200, json=STATUS)] * 4)

    def status(_: httpx.Request) -> httpx.Response:
        found = next(looks, None)
        if found is None:
            raise KeyboardInterrupt
        return found

    served.routes["GET /os/v1/status"] = status
    done = llmos("top", "--json", "--interval", "0.1")
    assert done.code == 130
    assert len(done.lines) == 3


def test_keys(server: Server) -> None:
    victim = process(1).process_id
    path = f"DELETE /os/v1/processes/{victim}"
    server.routes[path] = httpx.Response(200, json={"done": "it is being ended"})
    with server.client() as client:
        screen = Screen(client)
        screen.press("down")
        assert screen.chosen is None
        screen.show(frame(3))
        screen.press("k")
        assert "choose" in screen.message
        for key, chosen in (("down", 0), ("up", 0), ("down", 1), ("x", 1)):
            screen.press(key)
            assert screen.chosen == chosen
        screen.press("k")
        assert victim in screen.message
        screen.press("q")  # anything but y: nobody is killed, and nothing else happens
        assert (screen.message, screen.is_done, server.requests) == (HELP, False, [])
        screen.press("k")
        screen.press("y")
        assert screen.message == "it is being ended"
        server.routes[path] = refusal(404, "not_found")
        screen.press("k")
        screen.press("y")
        assert "not killed" in screen.message
        screen.show(frame(1))
        assert screen.chosen is None  # it has ended
        screen.press("q")
        assert screen.is_done


def test_what_is_painted_fills_the_screen(server: Server) -> None:
    from rich.console import Console

    console = Console(width=80, height=24, file=io.StringIO(), force_terminal=True)
    with server.client() as client:
        screen = Screen(client)
        assert len(str(_paint(screen, "x", console)).split("\n")) == 24
        screen.show(frame(100))
        painted = str(_paint(screen, "x", console)).split("\n")
    assert len(painted) == 24
    assert painted[-1].startswith(HELP)


def test_a_terminal_gives_single_keys_and_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as stdin, os.fdopen(ours, "wb", buffering=0) as person:
        monkeypatch.setattr("sys.stdin", stdin)
        import termios

        before = termios.tcgetattr(stdin)
        with keyboard() as read_key:
            assert read_key(0) is None
            for sent, key in ((b"q", "q"), (b"\x1b[A", "up"), (b"\x1bOB", "down")):
                person.write(sent)
                assert read_key(5) == key
            person.write(b"\x1b[Bk\x1b[Ay")  # faster than anyone reads
            assert [read_key(5) for _ in range(4)] == ["down", "k", "up", "y"]
            assert read_key(0) is None
        assert termios.tcgetattr(stdin)[3] == before[3]


def test_classes_are_all_shown() -> None:
    from llmos.cli.frame import CLASSES

    assert set(CLASSES) == {c.name.lower() for c in ServiceClass}
