"""What a label is told from: learned, kept in the model's own configuration, and read there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from llmos.errors import InvalidRequest
from llmos.programs.train.methods import apply_method
from llmos.programs.train.models import load_or_make
from llmos.programs.train.recipe import parse
from llmos.programs.train.work import Setting, Work
from tests.contract.train.context import run
from tests.contract.train.data import TINY, recipe, sentences, sentiment, write_csv
from tests.contract.train.test_objectives import embed, regress, tag
from tests.unit.drivers.encoder.folders import infer

TEXTS = [text for text, _ in sentences(8, seed=9)]


def pretrained(folder: Path, **model: Any) -> Path:
    folder.mkdir()
    path = folder / "train.txt"
    path.write_text("\n".join(text for text, _ in sentences(400)), "utf-8")
    wanted = {
        "name": "base",
        "objective": "masked",
        "data": {"train": "train.txt", "format": "lines"},
        "model": TINY | {"max_length": 32} | model,
        "training": {"steps": 30, "batch_size": 16, "learning_rate": 1e-2, "threads": 1},
    }
    outputs, context = run(folder / "run", wanted, {"train": path})
    assert outputs["metrics"]["validation"]["perplexity"] < 20
    assert context.registered is not None
    return context.registered


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that says how its heads are to pool."""
    folder = tmp_path_factory.mktemp("modernbert") / "base"
    return pretrained(folder, family="modernbert", pooling="mean")


def tuned(folder: Path, base: Path, method: str, **model: Any) -> Path:
    wanted = recipe(
        base="base:1",
        method=method,
        training={"steps": 60, "batch_size": 16, "threads": 1, "learning_rate": 2e-2},
        model={"max_length": 16} | model,
    )
    _, context = run(folder / "run", wanted, sentiment(folder / "data"), {"base": base})
    losses = [m["loss"] for m in context.metrics() if "split" not in m]
    assert min(losses[-5:]) < losses[0]
    assert context.registered is not None
    return context.registered


def config_of(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return made


@pytest.mark.parametrize("method", ["head", "lora"])
def test_whoever_loads_it_pools_as_it_has_learned(tmp_path: Path, base: Path, method: str) -> None:
    folder = tuned(tmp_path, base, method)
    config = config_of(folder)
    assert config["architectures"] == ["ModernBertForSequenceClassification"]
    assert config["classifier_pooling"] == "mean"
    theirs = transformers.pipeline("text-classification", str(folder))(TEXTS, batch_size=8)
    ours = infer(folder, "text-classification", TEXTS)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.value[0]["label"] == other["label"]
        assert mine.value[0]["score"] == pytest.approx(other["score"], abs=1e-5)


def test_a_recipe_may_pool_otherwise_than_its_base(tmp_path: Path, base: Path) -> None:
    folder = tuned(tmp_path, base, "full", pooling="first")
    assert config_of(folder)["classifier_pooling"] == "cls"
    assert config_of(base)["classifier_pooling"] == "mean"


def test_a_linear_probe_is_linear(tmp_path: Path, base: Path) -> None:
    """What is below the scores comes from the base, which told hidden words with it."""
    from safetensors.torch import load_file

    folder = tuned(tmp_path, base, "head")
    before = load_file(base / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    assert {name for name in after if name not in before} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert all(before[name].equal(after[name]) for name in after if name in before)


@pytest.mark.parametrize("kind", ["ModernBertForMaskedLM", "ModernBertModel"])
def test_a_head_is_learned_as_far_as_the_base_has_none(
    tmp_path: Path, base: Path, kind: str
) -> None:
    """Of one that hid no words the dense layer below the scores was drawn: nobody may keep that."""
    folder = tmp_path / "base"
    getattr(transformers, kind).from_pretrained(base).save_pretrained(folder)
    wanted = parse(recipe(base="base:1", method="head"))
    setting = Setting(wanted, {}, folder, {})
    model = load_or_make(setting, "AutoModelForSequenceClassification", None, num_labels=2)
    apply_method(wanted, Work(model, None, {}, lambda model, examples: {}), 1)
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    below = set() if kind == "ModernBertForMaskedLM" else {"head.dense.weight", "head.norm.weight"}
    assert learned == {"classifier.weight", "classifier.bias"} | below


def test_one_that_has_no_choice_says_so(tmp_path: Path) -> None:
    base = pretrained(tmp_path / "base")
    wanted = recipe(base="base:1", model={"pooling": "mean"})
    with pytest.raises(InvalidRequest, match="base:1 is bert, which has one way only") as told:
        run(tmp_path / "run", wanted, sentiment(tmp_path / "data"), {"base": base})
    assert told.value.param == "recipe.model.pooling"


@pytest.mark.parametrize("objective", ["classify", "qa"])
def test_pairs_need_no_kinds_of_tokens(tmp_path: Path, objective: str) -> None:
    """ModernBERT tells the texts of a pair by what stands between them."""
    rows = [
        (text, "which?", label if objective == "classify" else text.split()[0])
        for text, label in sentences(96)
    ]
    path = write_csv(tmp_path / "train.csv", rows, ("text", "pair", "label"))
    wanted = recipe(
        objective=objective,
        data={"train": "train.csv", "pair": "pair", "validation": 0.2, "test": 0.2},
        model={"family": "modernbert", "max_length": 24},
    )
    outputs, context = run(tmp_path / "run", wanted, {"train": path})
    assert outputs["status"] == "completed"
    assert context.registered is not None
    assert config_of(context.registered)["model_type"] == "modernbert"


@pytest.mark.parametrize("make", [regress, tag, embed])
def test_it_is_made_for_whatever_encoders_do(tmp_path: Path, make: Any) -> None:
    given, files = make(tmp_path)
    wanted = {"name": "m", "model": TINY | {"family": "modernbert"}, **given}
    wanted["training"] = {"steps": 8, "batch_size": 8, "threads": 1, "learning_rate": 1e-2}
    outputs, context = run(tmp_path / "run", wanted, files)
    assert outputs["steps"] == 8
    assert context.registered is not None
    assert config_of(context.registered)["model_type"] == "modernbert"
