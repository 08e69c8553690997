"""An adapter over its base is the model that was learned: merged, to the bit; otherwise, as PEFT
computes it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmos.abi.registry import AdapterForm
from llmos.weights import inspect
from tests.contract.train.context import run
from tests.contract.train.data import TINY, recipe, sentences, sentiment

MERGED = ("lora", "dora", "adalora", "ia3", "head")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder without a head for any task."""
    folder = tmp_path_factory.mktemp("base")
    path = folder / "train.txt"
    path.write_text("\n".join(text for text, _ in sentences(200)), "utf-8")
    wanted = {
        "name": "base",
        "objective": "masked",
        "data": {"train": "train.txt", "format": "lines"},
        "model": TINY | {"max_length": 32},
        "training": {"steps": 10, "batch_size": 16, "learning_rate": 1e-2, "threads": 1},
    }
    _, context = run(folder / "run", wanted, {"train": path})
    assert context.registered is not None
    return context.registered


def wanted_by(method: str, register: str | bool, **fields: Any) -> dict[str, Any]:
    training = {"steps": 12, "batch_size": 16, "threads": 1, "learning_rate": 1e-2}
    return recipe(
        base="base:1",
        method=method,
        adapter={"rank": 4, "tokens": 4},
        training=training,
        model=TINY | {"max_length": 16},
        register=register,
        **fields,
    )


def over(base: Path, adapter: Path, into: Path) -> Path:
    """As the registry lays an adapter over its base."""
    shutil.copytree(adapter, into)
    shutil.copy(base / "model.safetensors", into)
    return into


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[] if m == "lora" else pytest.mark.deep) for m in MERGED]
)
def test_what_is_merged_as_it_loads_is_what_peft_merges(
    tmp_path: Path, base: Path, method: str
) -> None:
    from llmos.drivers.adapters.folder import open_adapted

    files, models = sentiment(tmp_path / "data"), {"base": base}
    whole, merged = run(tmp_path / "whole", wanted_by(method, "merged"), files, models)
    apart, small = run(tmp_path / "apart", wanted_by(method, "adapter"), files, models)
    assert apart["metrics"] == whole["metrics"]
    assert merged.registered is not None
    assert small.registered is not None
    assert not (small.registered / "model.safetensors").exists()
    folder = over(base, small.registered, tmp_path / "version")
    facts = inspect(folder)
    assert facts.adapter is not None
    assert (facts.adapter.method, facts.adapter.form) == (method, AdapterForm.MERGED)
    assert facts.architecture == "BertForSequenceClassification"
    (tmp_path / "scratch").mkdir()
    adapted = open_adapted(folder, str(tmp_path / "scratch"))
    assert adapted is not None
    found = load_file(adapted.folder / "model.safetensors")
    expected = load_file(merged.registered / "model.safetensors")
    assert found.keys() >= expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert inspect(adapted.folder).adapter is None


class Kept:
    """What a run learned, before it is saved."""

    model: Any = None
    tokenizer: Any = None


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    from llmos.programs.train import saving

    kept, save = Kept(), saving.save

    def spy(ctx: Any, recipe: Any, work: Any, *others: Any) -> str:
        kept.model, kept.tokenizer = work.model.eval(), work.tokenizer
        return save(ctx, recipe, work, *others)

    monkeypatch.setattr(saving, "save", spy)
    return kept


ALWAYS = {"prefix", "prompt"}
BESIDE = {
    "prefix": AdapterForm.PREFIX,
    "prompt": AdapterForm.TOKENS,
    "p-tuning": AdapterForm.TOKENS,
    "bottleneck": AdapterForm.BOTTLENECK,
}
TEXTS = ["film good story", "dull plot", "music music cast great end", "awful"]


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[] if m in ALWAYS else pytest.mark.deep) for m in BESIDE]
)
def test_a_classifier_is_served_as_it_was_learned(
    tmp_path: Path, base: Path, kept: Kept, method: str
) -> None:
    from tests.unit.drivers.encoder.folders import infer

    files, models = sentiment(tmp_path / "data"), {"base": base}
    _, small = run(tmp_path / "apart", wanted_by(method, True), files, models)
    assert small.registered is not None
    assert small.results["raw:adapter"]
    folder = over(base, small.registered, tmp_path / "version")
    facts, plain = inspect(folder), inspect(base)
    assert facts.adapter is not None
    assert facts.adapter.form is BESIDE[method]
    assert facts.context_length == plain.context_length - facts.adapter.num_tokens
    params = {"top_k": None, "function_to_apply": "none"}
    outputs = infer(folder, "text-classification", TEXTS, params=params)
    for text, output in zip(TEXTS, outputs, strict=True):
        assert output.error is None
        found = {one["label"]: one["score"] for one in output.value}
        given = kept.tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            logits = kept.model(**given).logits[0].tolist()
        assert [found["neg"], found["pos"]] == pytest.approx(logits, abs=1e-4)
