"""Which model a task gets, and why."""

from __future__ import annotations

import pytest

from llmos.abi.registry import ModelVersion
from llmos.abi.tasks import TaskKind
from llmos.errors import InvalidRequest, ModelNotFound
from llmos.library import choose as module
from llmos.library.catalogue import Entry, Measured
from llmos.library.choose import choose, work_of, works_of

GENERATE = ("generate",)


def version(
    name: str, *kinds: str, params: int = 1000, source: str = "file:/x", newest: bool = True
) -> ModelVersion:
    return ModelVersion(
        model_id=f"mdl_{name}",
        name=name,
        version="1",
        driver="native",
        format="safetensors",
        folder="",
        digest="",
        size_bytes=0,
        context_length=1,
        vocab_size=1,
        prepare="",
        source=source,
        created_ns=0,
        num_parameters=params,
        kinds=list(kinds) or ["generate"],
        aliases=["latest"] if newest else [],
    )


def test_the_one_made_for_it_before_the_larger_one_that_generates() -> None:
    works = works_of(TaskKind.CLASSIFY, has_labels=False, has_prompt=False)
    models = [version("big", params=10**10), version("small", "text-classification")]
    chosen = choose(models, TaskKind.CLASSIFY, works, None)
    assert (chosen.version.name, chosen.work) == ("small", "text-classification")
    assert chosen.reason.startswith("for text-classification, chosen of 2 that could")


def test_labels_of_the_task_are_no_classifiers_own() -> None:
    works = works_of(TaskKind.CLASSIFY, has_labels=True, has_prompt=False)
    models = [version("own", "text-classification"), version("writer", params=5)]
    assert choose(models, TaskKind.CLASSIFY, works, None).version.name == "writer"


def test_the_language_before_the_size() -> None:
    models = [
        version("minilm", "embeddings", params=10**9,
                source="hf:sentence-transformers/all-MiniLM-L6-v2"),
        version("zh", "embeddings", params=10, source="hf:BAAI/bge-small-zh-v1.5@abc"),
        version("unknown", "embeddings", params=10**10),
    ]  # fmt: skip
    works = works_of(TaskKind.EMBED, has_labels=False, has_prompt=False)
    assert choose(models, TaskKind.EMBED, works, "zh").version.name == "zh"
    assert "speaks zh" in choose(models, TaskKind.EMBED, works, "zh").reason
    assert choose(models, TaskKind.EMBED, works, None).version.name == "unknown"
    english = choose(models[:2], TaskKind.EMBED, works, "en")
    assert english.version.name == "minilm"


def test_measured_quality_before_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Entry(
        "good", "", ["generate"], ["en"], 10, "MIT", "native", "x", [Measured("s", "accuracy", 0.8)]
    )
    monkeypatch.setattr(module, "entry_of", lambda name, _: measured if name == "good" else None)
    chosen = choose(
        [version("big", params=10**9), version("good", params=10)],
        TaskKind.GENERATE,
        GENERATE,
        None,
    )
    assert chosen.version.name == "good"
    assert "accuracy 0.8 on s" in chosen.reason


def test_only_newest_versions_and_no_double() -> None:
    models = [
        version("echo", params=0),
        version("old", params=10**9, newest=False),
        version("new", params=10),
    ]
    assert choose(models, TaskKind.GENERATE, GENERATE, None).version.name == "new"
    with pytest.raises(ModelNotFound, match="llmos models search --task generate"):
        choose(models[:1], TaskKind.GENERATE, GENERATE, None)


def test_equals_are_chosen_by_name_so_the_choice_is_always_the_same() -> None:
    models = [version("b"), version("a"), version("c")]
    for order in (models, models[::-1]):
        assert choose(order, TaskKind.GENERATE, GENERATE, None).version.name == "a"


def test_a_named_model_that_cannot_is_refused_with_what_it_is_for() -> None:
    works = works_of(TaskKind.EMBED, has_labels=False, has_prompt=False)
    with pytest.raises(InvalidRequest, match="writer:1 is for generate; this embed task"):
        work_of(version("writer"), works, TaskKind.EMBED)
    none = works_of(TaskKind.EMBED, has_labels=False, has_prompt=True)
    with pytest.raises(InvalidRequest, match="no model"):
        work_of(version("v", "embeddings"), none, TaskKind.EMBED)
