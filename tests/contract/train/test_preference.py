"""What TRL teaches: each objective runs on a small base made here, and goes on exactly."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import InvalidRequest
from tests.contract.train.context import run
from tests.contract.train.data import GOOD, OTHER, TINY, sentences, write_jsonl

SIZE = TINY | {"vocab_size": 400, "max_length": 32}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    path = folder / "train.txt"
    path.write_text("\n".join(text for text, _ in sentences(400)), "utf-8")
    wanted = {
        "name": "base",
        "objective": "causal",
        "data": {"train": "train.txt", "format": "lines"},
        "model": SIZE,
        "training": {"steps": 20, "batch_size": 16, "learning_rate": 1e-2, "threads": 1},
    }
    _, context = run(folder / "run", wanted, {"train": path})
    assert context.registered is not None
    return context.registered


def rows(objective: str, number: int = 64) -> list[dict[str, Any]]:
    rng = random.Random(0)
    made: list[dict[str, Any]] = []
    for _ in range(number):
        prompt, good, other = rng.choice(OTHER), rng.choice(GOOD), rng.choice(OTHER)
        made.append(
            {
                "sft": {"text": prompt, "target": f" {good}"},
                "dpo": {"text": prompt, "chosen": f" {good}", "rejected": f" {other}"},
                "reward": {"text": prompt, "chosen": f" {good}", "rejected": f" {other}"},
                "kto": {"text": prompt, "target": f" {good}", "label": rng.random() < 0.5},
                "grpo": {"text": prompt, "target": f" {good}"},
            }[objective]
        )
    return made


def recipe_of(objective: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": objective,
        "objective": objective,
        "base": "base:1",
        "data": {"train": "train.jsonl", "validation": 0.25},
        "model": {"max_length": 16},
        "training": {"steps": 8, "batch_size": 8, "learning_rate": 1e-3, "threads": 1},
        "watch": {"log_every": 1, "evaluate_every": 4},
    } | fields


@pytest.mark.parametrize(
    "objective",
    ["sft", *(pytest.param(o, marks=pytest.mark.deep) for o in ("dpo", "kto", "reward", "grpo"))],
)
def test_it_learns_and_goes_on_exactly(tmp_path: Path, base: Path, objective: str) -> None:
    files = {"train": write_jsonl(tmp_path / "train.jsonl", rows(objective))}
    wanted, models = recipe_of(objective), {"base": base}
    whole, seen = run(tmp_path / "whole", wanted, files, models)
    parts, again = run(tmp_path / "parts", wanted, files, models, yields=[2, 5])
    assert again.attempt == 3
    assert parts["weights"] == whole["weights"]
    assert seen.registered is not None
    assert ("reward" if objective == "grpo" else "loss") in whole["metrics"]["validation"]
    assert [m["step"] for m in seen.metrics(split="validation") if "final" not in m] == [4, 8]
    assert [m["step"] for m in seen.metrics() if "learning_rate" in m] == list(range(1, 9))


def test_lora_beneath_a_preference(tmp_path: Path, base: Path) -> None:
    files = {"train": write_jsonl(tmp_path / "train.jsonl", rows("dpo"))}
    wanted = recipe_of("dpo", method="lora", adapter={"rank": 2})
    outputs, context = run(tmp_path / "run", wanted, files, {"base": base})
    assert outputs["status"] == "completed"
    assert context.registered is not None
    assert not list(context.registered.glob("adapter*"))


def test_a_column_that_is_missing_is_named(tmp_path: Path, base: Path) -> None:
    files = {"train": write_jsonl(tmp_path / "train.jsonl", rows("sft"))}
    with pytest.raises(InvalidRequest, match="no column 'chosen'"):
        run(tmp_path / "run", recipe_of("dpo"), files, {"base": base})
