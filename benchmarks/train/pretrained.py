"""An encoder that is pre-trained here and registered; what goes on from it: a linear probe, a LoRA,
all weights.

By the recipes of `examples/`. It is pre-trained on the reviews that are learned from later, without
their labels, and on nothing that is held out. The control is the same encoder with the weights it
was born with: a probe of it says what the task alone would find there.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from benchmarks import harness
from benchmarks.serving import serving
from benchmarks.train import baselines, texts
from benchmarks.train.jobs import OPTIONS, Runs

RECIPES = harness.ROOT / "examples" / "recipes"
SET = "ChnSentiCorp"
TUNED = {"probe": "linear probe", "lora": "LoRA", "full": "all weights"}


def example(name: str, base: str | None = None) -> dict[str, Any]:
    """A recipe of `examples/`, without its data."""
    made: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text("utf-8"))
    made["data"] = {k: v for k, v in made["data"].items() if isinstance(v, float)}
    made["data"].pop("test", None)
    made["training"] = made.get("training", {}) | {"threads": 1}
    return made | ({"base": base} if base else {})


def corpus(folder: Path, learned: list[tuple[str, str]]) -> Path:
    """The texts to learn from, without their labels; nothing that is held out."""
    path = folder / "corpus.txt"
    path.write_text("\n".join(text for text, _ in learned), "utf-8")
    return path


def measure(result: harness.Result, folder: Path, steps: int | None, limit: int | None) -> None:
    """`steps` of pre-training, as the recipe says where None."""
    learned, held = texts.split(SET, limit)
    files = texts.write(folder, SET, learned, held)
    plain = corpus(folder, learned)
    with serving(*OPTIONS) as (server, _):
        runs = Runs(server)
        wanted = example("encoder")
        if steps is not None:
            wanted["training"]["steps"] = steps
        outputs = _run(runs, wanted, {"train": plain})
        still = {"steps": 1, "learning_rate": 1e-12, "threads": 1}
        born = wanted | {"name": "newborn", "training": still}
        models = {
            "": outputs["model"],
            ", not pre-trained": _run(runs, born, {"train": plain})["model"],
        }
        figure = f"pretrained, {outputs['steps']} steps of hidden words"
        result.add(
            harness.single(
                f"{figure}: perplexity", "", [outputs["metrics"]["validation"]["perplexity"]]
            )
        )
        result.add(harness.single(f"{figure}: one core", "s", [outputs["seconds"]]))
        peer = baselines.classified(learned, held)
        guessed = Counter(label for _, label in learned).most_common(1)[0][0]
        share = sum(label == guessed for _, label in held) / len(held)
        figure = f"pretrained, the commonest label: right of {len(held)} held out"
        result.add(texts.beside(figure, share, baselines.CLASSIFIER, peer))
        for recipe, said in TUNED.items():
            for which, base in models.items():
                tuned = _run(runs, example(recipe, base), files)
                value = tuned["metrics"]["test"]["accuracy"]
                name = f"pretrained, {said}{which}: right of {len(held)} held out"
                result.add(texts.beside(name, value, baselines.CLASSIFIER, peer))


def _run(runs: Runs, recipe: dict[str, Any], files: dict[str, Path]) -> dict[str, Any]:
    outputs = runs.end(runs.submit(recipe, files)).outputs
    assert outputs is not None
    return outputs
