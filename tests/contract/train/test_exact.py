"""A run that was put off and gone on with is the run that was not: bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llmos.programs.train.program import TrainProgram
from tests.contract.train.context import FakeContext, run
from tests.contract.train.data import recipe, sentiment


class Whole(NamedTuple):
    """A run that nobody disturbed."""

    files: dict[str, Path]
    outputs: dict[str, Any]
    seen: FakeContext


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    files = sentiment(folder / "data")
    return Whole(files, *run(folder / "run", recipe(), files))


def come_to_the_same(folder: Path, wanted: dict[str, Any], one: Whole, yields: list[int]) -> None:
    whole, seen = one.outputs, one.seen
    parts, again = run(folder, wanted, one.files, yields=yields)
    assert again.attempt == len(yields) + 1
    assert parts["weights"] == whole["weights"]
    assert parts["metrics"] == whole["metrics"]
    assert (parts["steps"], parts["best_step"], parts["tokens"]) == (
        (whole["steps"], whole["best_step"], whole["tokens"])
    )
    losses = {m["step"]: m["loss"] for m in seen.metrics() if "split" not in m}
    later = {m["step"]: m["loss"] for m in again.metrics() if "split" not in m}
    assert later
    assert later == {step: losses[step] for step in later}


def test_interrupted_at_any_step_it_comes_to_the_same_weights(tmp_path: Path, whole: Whole) -> None:
    come_to_the_same(tmp_path, recipe(), whole, [1, 4, 8, 9])


@pytest.mark.parametrize(
    "fields",
    [
        {"training": {"optimizer": "sgd", "schedule": "cosine", "accumulate": 2}},
        {"training": {"optimizer": "adafactor", "precision": "bfloat16"}},
        {"watch": {"evaluate_every": 5, "patience": 3, "metric": "loss"}},
    ],
    ids=["sgd", "adafactor", "early"],
)
def test_whatever_the_recipe_it_comes_to_the_same_weights(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    files, wanted = sentiment(tmp_path / "data"), recipe(**fields)
    whole = Whole(files, *run(tmp_path / "whole", wanted, files))
    come_to_the_same(tmp_path / "parts", wanted, whole, [1, 8])


def test_another_seed_is_another_model(tmp_path: Path, whole: Whole) -> None:
    other, _ = run(tmp_path, recipe(training={"seed": 1}), whole.files)
    assert whole.outputs["weights"] != other["weights"]


def test_killed_after_its_last_step_it_only_measures_again(tmp_path: Path, whole: Whole) -> None:
    last = whole.seen.checkpoints[-1]
    later = FakeContext(tmp_path, recipe(), whole.files, attempt=2, resumed_from=last)
    outputs = TrainProgram().run(later)
    assert outputs["weights"] == whole.outputs["weights"]
    assert not [m for m in later.metrics() if "learning_rate" in m]
