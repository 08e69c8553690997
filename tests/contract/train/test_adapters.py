"""An adapter over its base is the model that was learned: merged, to the bit; otherwise, as PEFT
computes it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmos.abi.registry import AdapterForm
from llmos.errors import InvalidRequest
from llmos.weights import inspect
from tests.contract.train.context import run
from tests.contract.train.data import TINY, recipe, sentences, sentiment, write_csv

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


def test_nothing_is_learned_that_could_not_be_kept_apart(tmp_path: Path, base: Path) -> None:
    files = sentiment(tmp_path / "data")
    _, small = run(tmp_path / "a", wanted_by("lora", "adapter"), files, {"base": base})
    assert small.registered is not None
    folder = over(base, small.registered, tmp_path / "version")
    with pytest.raises(InvalidRequest, match="is an adapter"):
        run(tmp_path / "b", wanted_by("lora", "adapter"), files, {"base": folder})
    renamed = tmp_path / "renamed"
    shutil.copytree(base, renamed)
    tensors = load_file(base / "model.safetensors")
    save_file({f"other.{n}": t for n, t in tensors.items()}, renamed / "model.safetensors")
    with pytest.raises(InvalidRequest, match="register: merged") as told:
        run(tmp_path / "c", wanted_by("lora", "adapter"), files, {"base": renamed})
    assert told.value.param == "recipe.register"


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


def test_a_translator_reads_virtual_tokens(tmp_path: Path, kept: Kept) -> None:
    """Those of a model with an encoder: PEFT learns as many again, and does not use them."""
    from tests.unit.drivers.encoder.folders import infer

    rows = [(word, word.upper()) for word in ("film", "plot", "cast", "music") * 20]
    files = {"train": write_csv(tmp_path / "train.csv", rows, ("text", "target"))}
    wanted = {
        "name": "t",
        "objective": "seq2seq",
        "data": {"train": "train.csv"},
        "model": TINY | {"vocab_size": 400, "max_length": 16},
        "training": {"steps": 20, "batch_size": 8, "learning_rate": 1e-2, "threads": 1},
    }
    _, context = run(tmp_path / "base", wanted, files)
    assert context.registered is not None
    more = {"base": "base:1", "method": "prompt", "adapter": {"tokens": 3}}
    models = {"base": context.registered}
    _, small = run(tmp_path / "apart", wanted | more, files, models)
    assert small.registered is not None
    folder = over(context.registered, small.registered, tmp_path / "version")
    texts = ["film", "music cast"]
    outputs = infer(folder, "translation", texts, params={"max_new_tokens": 6, "num_beams": 1})
    for text, output in zip(texts, outputs, strict=True):
        assert output.error is None, output
        given = kept.tokenizer(text, return_tensors="pt")
        ids = kept.model.generate(**given, max_new_tokens=6, num_beams=1, do_sample=False)[0]
        assert (
            output.value["text"].strip()
            == kept.tokenizer.decode(ids, skip_special_tokens=True).strip()
        )
