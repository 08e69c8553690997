"""Several processes of one run: as one with all of the batch, exact, and none outlives another."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from llmos.abi.program import Yielded
from llmos.errors import InvalidRequest, ProgramFailed, WorkerLost
from llmos.programs.train import crew
from llmos.programs.train.program import TrainProgram
from tests.contract.train.context import FakeContext, run
from tests.contract.train.data import TINY, recipe, sentiment, write_jsonl
from tests.contract.train.test_objectives import embed
from tests.contract.train.test_preference import base, recipe_of, rows

pytestmark = pytest.mark.timeout(600)  # every process imports torch
__all__ = ["base"]  # the fixture

BETWEEN = 2e-5
"""Weights of two processes and of one differ by how sums are rounded, step after step; weights
themselves are some hundredths."""


def wanted_by(processes: int, batch_size: int, **fields: Any) -> dict[str, Any]:
    training = {"epochs": 2, "threads": 1, "processes": processes, "batch_size": batch_size}
    return recipe(training=training, **fields)


def children() -> set[int]:
    me = os.getpid()
    found = set()
    for task in Path(f"/proc/{me}/task").iterdir():
        found |= set(map(int, (task / "children").read_text("ascii").split()))
    return found


def test_two_learn_what_one_learns_of_both_their_parts(tmp_path: Path) -> None:
    """13 examples are left for the last batch: parts of 7 and 6."""
    files = sentiment(tmp_path / "data", 93)
    still = {"model": TINY | {"dropout": 0.0}}
    before = children()
    two, seen = run(tmp_path / "two", wanted_by(2, 10, **still), files)
    assert children() == before
    one, whole = run(tmp_path / "one", wanted_by(1, 20, **still), files)
    assert (two["steps"], two["tokens"]) == (one["steps"], one["tokens"]) == (10, one["tokens"])
    assert seen.registered is not None
    assert whole.registered is not None
    ours = load_file(seen.registered / "model.safetensors")
    theirs = load_file(whole.registered / "model.safetensors")
    assert max(float((ours[n] - theirs[n]).abs().max()) for n in theirs) < BETWEEN
    losses = [[m["loss"] for m in c.metrics() if "split" not in m] for c in (seen, whole)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


class Killing(FakeContext):
    """Kills the other processes once a step is told of."""

    kill_at = 0

    def progress(self, done: float, *given: Any, **named: Any) -> None:
        super().progress(done, *given, **named)
        if self.kill_at and self.step >= self.kill_at:
            self.kill_at = 0
            for pid in children():
                os.kill(pid, signal.SIGKILL)


def drill(tmp_path: Path, wanted: dict[str, Any], files: dict[str, Path], **of: Any) -> None:
    """Put off once, then one of its processes is killed: it comes to the same weights."""
    whole, seen = run(tmp_path / "whole", wanted, files, **of)
    before = children()
    first = FakeContext(tmp_path / "parts", wanted, files, attempt=1, yield_at=2, **of)
    with pytest.raises(Yielded):
        TrainProgram().run(first)
    resumed_from = first.checkpoints[-1]
    second = Killing(tmp_path / "parts", wanted, files, attempt=2, resumed_from=resumed_from, **of)
    second.kill_at = 5
    with pytest.raises(WorkerLost, match=r"process \d of \d was killed by SIGKILL") as raised:
        TrainProgram().run(second)
    assert raised.value.retryable
    assert children() == before
    resumed_from = [*first.checkpoints, *second.checkpoints][-1]
    last = FakeContext(
        tmp_path / "parts", wanted, files, attempt=3, resumed_from=resumed_from, **of
    )
    parts = TrainProgram().run(last)
    assert parts["weights"] == whole["weights"]
    assert parts["metrics"] == whole["metrics"]
    assert (parts["steps"], parts["tokens"]) == (whole["steps"], whole["tokens"])
    losses = {m["step"]: m["loss"] for m in seen.metrics() if "learning_rate" in m}
    later = {m["step"]: m["loss"] for m in last.metrics() if "learning_rate" in m}
    assert later
    assert later == {step: losses[step] for step in later}


@pytest.mark.parametrize(
    "processes", [2, pytest.param(3, marks=pytest.mark.deep)], ids=["two", "three"]
)
def test_put_off_and_killed_they_come_to_the_same_weights(tmp_path: Path, processes: int) -> None:
    watch = {"checkpoint_s": 1e-6, "log_every": 1, "evaluate_every": 3}
    drill(tmp_path, wanted_by(processes, 8, watch=watch), sentiment(tmp_path / "data", 93))


def test_what_one_of_them_raises_is_what_the_run_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are gone before it reads them: so it cannot take its place, and says why."""
    files = sentiment(tmp_path / "data")
    start = crew.Others._start
    empty = tmp_path / "empty.csv"
    empty.write_text("text,label\n")

    def start_without(self: Any, ctx: Any, rank: int, threads: int) -> Any:
        ctx.files = ctx.files | {"train": str(empty)}
        try:
            return start(self, ctx, rank, threads)
        finally:
            ctx.files = {name: str(path) for name, path in files.items()}

    monkeypatch.setattr(crew.Others, "_start", start_without)
    with pytest.raises(InvalidRequest, match="there are no examples"):
        run(tmp_path / "run", wanted_by(2, 8), files)


def test_one_that_cannot_even_begin_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    files = sentiment(tmp_path / "data")
    began_s = time.monotonic()
    with pytest.raises(ProgramFailed, match="process 1 of 2 exited with 1"):
        run(tmp_path / "run", wanted_by(2, 8), files)
    assert time.monotonic() - began_s < 30


@pytest.mark.deep
@pytest.mark.parametrize("objective", ["sft", "grpo"])
def test_trainers_of_trl_in_two_processes(tmp_path: Path, base: Path, objective: str) -> None:
    wanted = recipe_of(objective, watch={"checkpoint_s": 1e-6, "log_every": 1, "evaluate_every": 4})
    wanted["training"] |= {"processes": 2, "batch_size": 4}
    files = {"train": write_jsonl(tmp_path / "train.jsonl", rows(objective))}
    drill(tmp_path, wanted, files, models={"base": base})


@pytest.mark.deep
def test_vectors_in_two_processes(tmp_path: Path) -> None:
    """A model that is called twice a step, with weights that learn nothing."""
    given, files = embed(tmp_path)
    training = {"steps": 12, "batch_size": 8, "processes": 2, "threads": 1}
    watch = {"checkpoint_s": 1e-6, "log_every": 1, "evaluate_every": 6}
    wanted = {"name": "e", "model": dict(TINY), "training": training, "watch": watch} | given
    drill(tmp_path, wanted, files)
