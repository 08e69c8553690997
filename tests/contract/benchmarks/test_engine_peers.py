"""The protocol with a peer's program, in a real process; environments that do not install."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import bench_engine, harness
from benchmarks.engine import environments, ours, peer, sides
from benchmarks.engine.environments import Absent, Peer
from benchmarks.engine.options import Context
from benchmarks.engine.peers import vllm_weights
from benchmarks.engine.peers.protocol import Request, Setup, drive, encode_setup
from benchmarks.engine.sides import Side

PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from benchmarks.engine.peers.protocol import serve

def load(setup):
    if setup.precision == "int4":
        raise RuntimeError("no int4 here")
    print("a library talks")  # must not be taken for an answer
    def run(requests):
        if requests[0].num_new == 13:
            sys.exit("broke")
        return [[float(n) for n in range(r.num_new)] for r in requests]
    return run, {{"version": setup.model}}

sys.exit(serve(load))
"""


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Peer:
    """A peer whose interpreter runs PROGRAM whatever module it is asked for."""
    monkeypatch.setenv("LLMOS_BENCH_CACHE", str(tmp_path))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(root=str(harness.ROOT)))
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$3"\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr(environments, "python", lambda name: interpreter)
    environments.folder("x").parent.mkdir(parents=True)
    return Peer("scripted", "Scripted", "none", "none")


def _setup(tmp_path: Path, precision: str = "bf16") -> Setup:
    return Setup("7", precision, 1, 4, 64, str(tmp_path / "made"))


def test_a_program_answers_and_what_it_prints_is_not_an_answer(
    scripted: Peer, tmp_path: Path
) -> None:
    with peer.Running(scripted, _setup(tmp_path)) as running:
        assert running.facts == {"version": "7"}
        assert running.run([Request([1], 2), Request([2], 1)]) == [[0.0, 1.0], [0.0]]
        assert running.run([Request([1], 1)]) == [[0.0]]


def test_it_does_not_run_between_runs(scripted: Peer, tmp_path: Path) -> None:
    with peer.Running(scripted, _setup(tmp_path)) as running:
        running.run([Request([1], 1)])
        status = Path(f"/proc/{running._process.pid}/stat")
        deadline = time.monotonic() + 10
        while status.read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < deadline


def test_a_program_that_ends_is_absent_with_its_last_words(scripted: Peer, tmp_path: Path) -> None:
    with pytest.raises(Absent, match="no int4 here"):
        peer.Running(scripted, _setup(tmp_path, "int4"))
    with (
        peer.Running(scripted, _setup(tmp_path)) as running,
        pytest.raises(Absent, match="broke"),
    ):
        running.run([Request([1], 13)])


def test_a_precision_a_peer_has_not(tmp_path: Path) -> None:
    generate = next(p for p in environments.PEERS if p.name == "generate")
    with pytest.raises(Absent, match="has no int8"):
        peer.Running(generate, _setup(tmp_path, "int8"))


def test_what_does_not_install_is_absent_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOS_BENCH_CACHE", str(tmp_path))
    tries = []

    def install(name: str, place: Path) -> None:
        tries.append(name)
        environments.log(name).parent.mkdir(parents=True, exist_ok=True)
        environments.log(name).write_text("much\nERROR: no such release\n")
        raise subprocess.CalledProcessError(1, ["pip"])

    monkeypatch.setattr(environments, "install", install)
    for _ in range(2):
        with pytest.raises(Absent, match="did not install: much / ERROR: no such release"):
            environments.python("vllm")
    assert tries == ["vllm"]
    monkeypatch.setattr(environments, "digest", lambda name: "another list")
    with pytest.raises(Absent):
        environments.python("vllm")
    assert tries == ["vllm", "vllm"]


def test_an_installed_environment_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOS_BENCH_CACHE", str(tmp_path))

    def install(name: str, place: Path) -> None:
        place.mkdir(parents=True)

    monkeypatch.setattr(environments, "install", install)
    found = environments.python("llama")
    monkeypatch.setattr(environments, "install", None)
    assert environments.python("llama") == found == tmp_path / "llmos-bench/peers/llama/bin/python"


@pytest.mark.parametrize("wanted", environments.PEERS, ids=lambda wanted: wanted.name)
def test_every_peer_has_its_program_and_its_pinned_list(wanted: Peer) -> None:
    assert (environments.LISTS / f"{wanted.module}.py").exists()
    lines = (environments.LISTS / f"{wanted.environment}.txt").read_text().splitlines()
    assert lines
    assert all("==" in line for line in lines)


def test_absent_peers_are_reported_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, wanted: Peer, setup: Setup) -> None:
            self.facts = {"version": "1"}
            if wanted.name != "vllm":
                raise Absent("did not install: no compiler")

        def __enter__(self) -> Fake:
            return self

        def __exit__(self, *_: object) -> None: ...

        def run(self, requests: list[Request]) -> list[list[float]]:
            return [[1.0] for _ in requests]

    def refuse(load: ours.Load) -> object:
        raise Absent("unknown key kernel.dtype")

    monkeypatch.setattr(peer, "Running", Fake)
    monkeypatch.setattr(peer, "setup", lambda *_: None)
    monkeypatch.setattr(ours, "start", refuse)
    said: list[str] = []
    load = ours.Load("0.4b-long", "int8", 2, 32, 1024)
    with sides.opened(load, environments.PEERS[:3], said.append) as running:
        assert [side.title for side in running] == ["vLLM CPU"]
    assert said == [
        "0.4b-long int8: ours is absent: unknown key kernel.dtype",
        "0.4b-long int8: OpenVINO GenAI is absent: did not install: no compiler",
        "0.4b-long int8: llama.cpp is absent: did not install: no compiler",
    ]


def test_a_side_that_breaks_is_left_out_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sides, "PAUSE_S", 0.0)

    def breaks(requests: list[Request]) -> list[list[float]]:
        raise Absent("ended")

    def works(requests: list[Request]) -> list[list[float]]:
        return [[float(n) for n in range(r.num_new)] for r in requests]

    said: list[str] = []
    narrow = Side("narrow", works, 1)
    running = [Side("ours", works, 8), Side("peer", breaks, 8), narrow]
    sides.in_turn(
        running,
        width=2,
        repetitions=3,
        draw=lambda wanted: [Request([1], wanted or 6)] * 2,
        read=lambda token_s: {"last": token_s[0][-1]},
        report=said.append,
    )
    assert running[0].kept == {"last": [5.0, 5.0, 5.0]}  # the warm-up is not kept
    assert narrow.kept == {}  # two streams are more than it takes
    assert running == [running[0], narrow]
    assert said == ["peer is left out at 2 streams: ended"]


class _Batcher:
    """A token per step for each that has been added."""

    def __init__(self) -> None:
        self.left: dict[int, int] = {}

    def add(self, index: int, request: Request) -> None:
        self.left[index] = request.num_new

    def step(self) -> list[tuple[int, int]]:
        got = [(index, 1) for index, left in self.left.items() if left]
        self.left = {index: left - 1 for index, left in self.left.items() if left}
        return got


def test_requests_are_added_when_due() -> None:
    token_s = drive(_Batcher(), [Request([1], 2, due_s=0.02), Request([1], 3)])
    assert [len(times) for times in token_s] == [2, 3]
    assert token_s[0][0] >= 0.02
    assert token_s[1][0] < 0.02


def test_the_setup_is_json(tmp_path: Path) -> None:
    assert '"num_slots": 4' in encode_setup(_setup(tmp_path))


def test_int4_weights_are_packed_eight_to_an_int() -> None:
    import torch

    weight = torch.zeros(2, 128)
    weight[0, :8] = torch.tensor([7.0, -7, 0, 1, 2, 3, -1, -8 + 1])
    made = vllm_weights.int4(weight)
    packed = int(made["weight_packed"][0, 0]) & 0xFFFFFFFF
    assert [((packed >> (4 * at)) & 15) - 8 for at in range(8)] == [7, -7, 0, 1, 2, 3, -1, -7]
    assert made["weight_packed"].shape == (2, 16)
    assert made["weight_scale"][0, 0] == 1.0
    assert made["weight_shape"].tolist() == [2, 128]


def test_int8_weights_have_a_scale_per_row() -> None:
    import torch

    made = vllm_weights.int8(torch.tensor([[127.0, -64], [1.0, 0.5]]))
    assert made["weight"].tolist() == [[127, -64], [127, 64]]
    assert made["weight_scale"][0] == 1.0


def _context(*arguments: str) -> Context:
    return bench_engine.context(bench_engine.parser().parse_args(arguments))


def test_arguments() -> None:
    given = _context("--widths", "8,1", "--peers", "llama", "--threads", "2", "--models", "60m")
    assert (given.widths, given.models) == ([1, 8], ["60m"])
    assert [wanted.name for wanted in given.peers] == ["llama"]
    load = given.load("60m", "int8", 64)
    assert load == ours.Load("60m-long", "int8", 2, 8, 64, our_threads=2)
    assert _context().load("60m", "int8", 64).our_threads == 0
    assert _context("--peers", "").peers == []
    both = _context("--models", "0.4b,60m")
    assert (both.widths_of("0.4b"), both.widths_of("60m")) == ([1, 8, 16, 32], [1, 32])
    assert _context("--full").widths_of("60m") == [1, 8, 16, 32]
    assert _context("--widths", "8").widths_of("60m") == [8]
    assert _context().repetitions < _context("--full").repetitions
    with pytest.raises(ValueError, match="no peer sglang"):
        _context("--peers", "llama,sglang")


def test_a_worker_does_not_see_our_pythonpath(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llmos").mkdir()
    (tmp_path / "llmos" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = ours.source()
    assert found.name == "__init__.py"
    assert not found.is_relative_to(tmp_path)


def test_settings_of_our_server() -> None:
    made = ours.settings(ours.Load("60m-long", "int4", 4, 32, 1024, our_threads=2))
    assert {"kernel.num_slots=32", "kernel.num_threads=2", "kernel.dtype=int4"} <= set(made)


def test_a_peers_process_has_its_own_tools_and_what_it_preloads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("LD_PRELOAD", "/ours.so")
    made = peer.environment(2, Path("/made/bin/python"), "lib/libx.so")
    assert made["LD_PRELOAD"] == "/made/lib/libx.so"
    assert made["OMP_NUM_THREADS"] == "2"
    assert made["PATH"].startswith("/made/bin:")
    assert "PYTHONPATH" not in made
