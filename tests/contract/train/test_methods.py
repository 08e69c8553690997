"""Every method learns a few weights of a base, goes on exactly, and comes to what is promised."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import PluginError
from tests.contract.train.context import FakeContext, run
from tests.contract.train.data import TINY, recipe, sentences, sentiment

MERGED = ("head", "lora", "dora", "adalora", "ia3")
ADDED = ("prefix", "prompt", "p-tuning", "bottleneck")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder that was pre-trained here."""
    folder = tmp_path_factory.mktemp("base")
    path = folder / "train.txt"
    path.write_text("\n".join(text for text, _ in sentences(400)), "utf-8")
    wanted = {
        "name": "base",
        "objective": "masked",
        "data": {"train": "train.txt", "format": "lines"},
        "model": TINY | {"max_length": 32},
        "training": {"steps": 30, "batch_size": 16, "learning_rate": 1e-2, "threads": 1},
    }
    _, context = run(folder / "run", wanted, {"train": path})
    assert context.registered is not None
    return context.registered


def wanted_by(method: str, **training: Any) -> dict[str, Any]:
    fields = {"steps": 24, "batch_size": 16, "threads": 1, "learning_rate": 1e-2}
    return recipe(
        base="base:1",
        method=method,
        adapter={"rank": 4, "tokens": 4},
        training=fields | training,
        model=TINY | {"max_length": 16},
    )


ALWAYS = {"lora", "adalora", "prefix"}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(each, marks=[] if each in ALWAYS else pytest.mark.deep)
        for each in (*MERGED, *ADDED)
    ],
)
def test_a_few_weights_are_learned_exactly(tmp_path: Path, base: Path, method: str) -> None:
    files, wanted, models = sentiment(tmp_path / "data"), wanted_by(method), {"base": base}
    whole, seen = run(tmp_path / "whole", wanted, files, models)
    parts, again = run(tmp_path / "parts", wanted, files, models, yields=[3, 12])
    assert again.attempt == 3
    assert parts["weights"] == whole["weights"]
    assert parts["metrics"] == whole["metrics"]
    losses = [m["loss"] for m in seen.metrics() if "split" not in m]
    assert min(losses[-5:]) < losses[0]
    if method in MERGED:
        assert seen.registered is not None
        config = json.loads((seen.registered / "config.json").read_text())
        assert config["architectures"] == ["BertForSequenceClassification"]
        assert not list(seen.registered.glob("adapter*"))
    else:
        assert whole["model"] == "tiny:1"
        assert seen.registered is not None
        assert not list(seen.registered.glob("*.safetensors"))
        pieces = seen.results["raw:adapter"]
        whole_file = BytesIO(b"".join(pieces[i] for i in sorted(pieces)))
        with tarfile.open(fileobj=whole_file) as archive:
            assert "adapter/adapter_model.safetensors" in archive.getnames()


def test_ranks_of_adalora_move(tmp_path: Path, base: Path) -> None:
    from llmos.programs.train import methods

    seen: list[int] = []
    moved = methods.reallocate

    def spy(model: Any, step: int) -> None:
        moved(model, step)
        zero = sum(int((p == 0).sum()) for name, p in model.named_parameters() if "lora_E" in name)
        seen.append(zero)

    import llmos.programs.train.watch as watch

    original, watch.reallocate = watch.reallocate, spy
    try:
        run(tmp_path / "run", wanted_by("adalora", steps=40), sentiment(tmp_path), {"base": base})
    finally:
        watch.reallocate = original
    assert len(seen) == 40
    assert seen[-1] > 0, "no direction was given up"


def test_four_bits_need_their_library(tmp_path: Path, base: Path) -> None:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        with pytest.raises(PluginError, match="pip install"):
            run(tmp_path / "run", wanted_by("qlora"), sentiment(tmp_path), {"base": base})
    else:
        outputs, _ = run(tmp_path / "run", wanted_by("qlora"), sentiment(tmp_path), {"base": base})
        assert outputs["status"] == "completed"


def test_a_probe_leaves_the_base_as_it_is(tmp_path: Path, base: Path) -> None:
    from safetensors.torch import load_file

    _, context = run(tmp_path / "run", wanted_by("head"), sentiment(tmp_path), {"base": base})
    assert isinstance(context, FakeContext)
    assert context.registered is not None
    before = load_file(base / "model.safetensors")
    after = load_file(context.registered / "model.safetensors")
    shared = [name for name in before if name in after and "encoder.layer" in name]
    assert shared
    assert all(before[name].equal(after[name]) for name in shared)
