"""Before a run begins: is it one, does it fit, and what would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.registry import AdapterForm, AdapterOf, ModelVersion
from llmos.errors import InvalidRequest, ModelTooLarge
from llmos.programs.train.help import as_markdown, as_text, rows
from llmos.programs.train.memory import LIBRARIES_BYTES, SLACK, Sizes, needed_bytes
from llmos.programs.train.plan import base_sizes, plan, scratch_sizes
from llmos.programs.train.program import threads_of
from llmos.programs.train.recipe import parse

GIB = 1 << 30
FILES = {"train": 1000}


def version(folder: Path, **fields: Any) -> ModelVersion:
    folder.mkdir(exist_ok=True)
    config = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    (folder / "config.json").write_text(json.dumps(config))
    made: dict[str, Any] = {
        "model_id": "mdl_1",
        "name": "bert",
        "version": "1",
        "driver": "encoder",
        "format": "safetensors",
        "folder": str(folder),
        "digest": "",
        "size_bytes": 440 << 20,
        "context_length": 512,
        "vocab_size": 30522,
        "prepare": "",
        "source": "",
        "created_ns": 0,
        "num_parameters": 110_000_000,
    }
    return ModelVersion(**made | fields)


def asked(**fields: Any) -> dict[str, Any]:
    return {"recipe": {"name": "x", "objective": "classify"} | fields}


def test_a_small_run_fits() -> None:
    assert GIB / 2 < plan(asked(), FILES, {}, 8 * GIB) < 2 * GIB


@pytest.mark.parametrize(
    ("fields", "files", "models", "param"),
    [
        ({}, {}, {}, "files.train"),
        ({"base": "bert"}, FILES, {}, "models.base"),
        ({"name": ""}, FILES, {}, "recipe.name"),
        ({"method": "lora"}, FILES, {}, "recipe.method"),
        ({"objective": "dpo"}, FILES, {}, "recipe.base"),
        ({"register": "adapter"}, FILES, {}, "recipe.register"),
        (
            {"register": "merged", "base": "bert", "method": "prefix"},
            FILES,
            {},
            "recipe.register",
        ),
        ({"register": "whole"}, FILES, {}, "recipe.register"),
        ({"model": {"hidden_size": 10, "num_heads": 3}}, FILES, {}, "recipe.model.num_heads"),
        ({"model": {"family": "t5"}}, FILES, {}, "recipe.model.family"),
        ({"model": {"pooling": "mean"}}, FILES, {}, "recipe.model.pooling"),
        *(
            (
                {"objective": objective, "model": {"pooling": "first", "family": "modernbert"}},
                FILES,
                {},
                "recipe.model.pooling",
            )
            for objective in ("embed", "tag", "qa")
        ),
        (
            {"objective": "masked", "training": {"class_weights": "balanced"}},
            FILES,
            {},
            "recipe.training.class_weights",
        ),
    ],
)
def test_what_is_no_run(
    fields: dict[str, Any], files: dict[str, int], models: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        plan(asked(**fields), files, models, 8 * GIB)
    assert raised.value.param == param


def test_a_base_that_cannot_be_learned_on(tmp_path: Path) -> None:
    base = version(tmp_path)
    longer = asked(base="bert", model={"max_length": 1024})
    with pytest.raises(InvalidRequest, match="bert:1 reads 512"):
        plan(longer, FILES, {"base": base}, 64 * GIB)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InvalidRequest, match="modernbert, eurobert have two"):
        plan(asked(base="bert", model={"pooling": "mean"}), FILES, {"base": base}, 64 * GIB)
    adapter = AdapterOf("lora", AdapterForm.MERGED, "words:1", "sha256:1")
    for fields in ({"format": "gguf"}, {"dtype": "int8"}, {"adapter": adapter}):
        with pytest.raises(InvalidRequest):
            plan(asked(base="bert"), FILES, {"base": version(tmp_path, **fields)}, 64 * GIB)


def test_what_does_not_fit_is_told_what_would(tmp_path: Path) -> None:
    models = {"base": version(tmp_path)}
    large = asked(base="bert", training={"batch_size": 512}, model={"max_length": 512})
    with pytest.raises(ModelTooLarge, match=r"batch_size: (\d+) with training.accumulate") as told:
        plan(large, FILES, models, 8 * GIB)
    said = told.value.message.split("batch_size: ")[1].split()[0]
    large["recipe"]["training"]["batch_size"] = int(said)
    assert plan(large, FILES, models, 8 * GIB) <= 8 * GIB
    least = asked(base="bert", training={"batch_size": 1}, model={"max_length": 512})
    with pytest.raises(ModelTooLarge, match="method: lora"):
        plan(least, FILES, models, int(2.4 * GIB))


def weights(sizes: Sizes) -> int:
    """Bytes of what is there whatever is learned."""
    return LIBRARIES_BYTES + int(SLACK * 4 * sizes.num_parameters)


def test_every_process_needs_its_own_and_one_may_fit_where_two_do_not(tmp_path: Path) -> None:
    models = {"base": version(tmp_path)}
    one, two = (asked(base="bert", training={"processes": n}) for n in (1, 2))
    needed = plan(one, FILES, models, 64 * GIB)
    assert plan(two, FILES, models, 64 * GIB) == 2 * needed
    told = r"training\.processes: 1 with training\.accumulate: 2$"
    with pytest.raises(ModelTooLarge, match=told):
        plan(two, FILES, models, needed)
    with pytest.raises(ModelTooLarge, match=r"processes: 1 and training\.batch_size: 16 "):
        plan(two, FILES, models, needed - 1)


def test_processors_are_shared_out_among_processes() -> None:
    def threads(**training: int) -> int:
        return threads_of(parse(asked(base="bert", training=training)["recipe"]), 8)

    assert (threads(), threads(processes=3), threads(processes=16)) == (8, 2, 1)
    assert threads(processes=3, threads=5) == 5


def test_a_few_weights_need_less_than_all(tmp_path: Path) -> None:
    sizes = base_sizes(version(tmp_path))
    full, lora, head = (
        needed_bytes(parse(asked(base="b", method=method)["recipe"]), sizes)
        for method in ("full", "lora", "head")
    )
    assert head < lora < full
    kept_by_lora, kept_by_head = lora - weights(sizes), head - weights(sizes)
    assert kept_by_head < kept_by_lora / 5  # of one layer, not of twelve


@pytest.mark.parametrize(
    ("family", "objective"),
    [("bert", "masked"), ("modernbert", "masked"), ("llama", "causal"), ("t5", "seq2seq")],
)
def test_weights_are_counted_as_they_are_made(family: str, objective: str) -> None:
    import transformers

    from llmos.programs.train.scratch import make_config

    recipe = parse(
        {
            "name": "x",
            "objective": objective,
            "model": {
                "family": family,
                "hidden_size": 256,
                "num_layers": 4,
                "vocab_size": 8000,
            },
        }
    )

    class Tokenizer:
        pad_token_id = bos_token_id = eos_token_id = cls_token_id = sep_token_id = 0

        def __len__(self) -> int:
            return 8000

    config = make_config(family, recipe.model, Tokenizer())
    kinds = {"masked": "MaskedLM", "causal": "CausalLM", "seq2seq": "Seq2SeqLM"}
    auto: Any = getattr(transformers, f"AutoModelFor{kinds[objective]}")
    import torch

    with torch.device("meta"):
        true = auto.from_config(config).num_parameters()
    told = scratch_sizes(recipe).num_parameters
    assert 0.97 * true < told < 1.15 * true


def test_every_field_explains_itself() -> None:
    made = list(rows())
    assert len(made) > 50
    assert all(row.about for row in made)
    for text in (as_text(), as_markdown()):
        assert all(row.path in text for row in made)
