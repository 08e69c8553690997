"""A run that was put off and gone on with is the run that was not: bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contract.train.context import FakeContext, run
from tests.contract.train.data import recipe, sentiment


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"training": {"optimizer": "sgd", "schedule": "cosine", "accumulate": 2}},
        {"training": {"optimizer": "adafactor", "precision": "bfloat16"}},
        {"watch": {"evaluate_every": 5, "patience": 3, "metric": "loss"}},
    ],
    ids=["adamw", "sgd", "adafactor", "early"],
)
def test_interrupted_at_any_step_it_comes_to_the_same_weights(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    files, wanted = sentiment(tmp_path / "data"), recipe(**fields)
    whole, seen = run(tmp_path / "whole", wanted, files)
    parts, again = run(tmp_path / "parts", wanted, files, yields=[1, 4, 8, 9])
    assert again.attempt > 2
    assert parts["weights"] == whole["weights"]
    assert parts["metrics"] == whole["metrics"]
    assert (parts["steps"], parts["best_step"], parts["tokens"]) == (
        (whole["steps"], whole["best_step"], whole["tokens"])
    )
    losses = {m["step"]: m["loss"] for m in seen.metrics() if "split" not in m}
    later = {m["step"]: m["loss"] for m in again.metrics() if "split" not in m}
    assert later
    assert later == {step: losses[step] for step in later}


def test_another_seed_is_another_model(tmp_path: Path) -> None:
    files = sentiment(tmp_path / "data")
    one, _ = run(tmp_path / "one", recipe(), files)
    other, _ = run(tmp_path / "other", recipe(training={"seed": 1}), files)
    assert one["weights"] != other["weights"]


def test_killed_after_its_last_step_it_only_measures_again(tmp_path: Path) -> None:
    files, wanted = sentiment(tmp_path / "data"), recipe()
    first, context = run(tmp_path / "first", wanted, files)
    last = context.checkpoints[-1]
    later = FakeContext(tmp_path / "later", wanted, files, attempt=2, resumed_from=last)
    from llmos.programs.train.program import TrainProgram

    outputs = TrainProgram().run(later)
    assert outputs["weights"] == first["weights"]
    assert not [m for m in later.metrics() if "learning_rate" in m]
